//! The structured log: defmt frames in a ring of bytes in the image, which the runner reads from the guest's memory and
//! decodes with the image's symbols.
//!
//! Frames are rzCOBS-encoded (the crate's default), so a reader that finds the ring overwritten resumes at the next
//! frame. A frame is published when it is complete. Code that interrupted the writing of a frame on the same CPU writes
//! none.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use defmt::{Encoder, Logger, global_logger};
use kernel::arch::Arch;

use crate::SHARED;
use crate::lock::{Entry, Lock};
use crate::machine::{self, Native};

/// Bytes that are kept.
const RING_BYTES: usize = 1 << 18;

static LOCK: Lock = Lock::new();
static WRITER: Shelf<Writer> = Shelf(UnsafeCell::new(Writer { encoder: Encoder::new(), entry: None, next: 0 }));
/// How many frames were begun by code that interrupted the present one; touched on the lock holder's CPU only, hence
/// Relaxed.
static NESTED: AtomicU32 = AtomicU32::new(0);
static RING: Ring = Ring(Shelf(UnsafeCell::new([0; RING_BYTES])));

defmt::timestamp!("{=u64}", Native::instructions());

/// Something that only the holder of [`LOCK`] touches.
struct Shelf<T>(UnsafeCell<T>);

// SAFETY: all accesses are in this file, by the holder of `LOCK`.
unsafe impl<T> Sync for Shelf<T> {}

/// The bytes; on their own pages, so that the runner can map them.
#[repr(align(4096))]
struct Ring(Shelf<[u8; RING_BYTES]>);

struct Writer {
    encoder: Encoder,
    /// How the lock was entered.
    entry: Option<Entry>,
    /// Bytes ever written, those of the present frame included.
    next: u64,
}

impl Writer {
    /// The writer.
    ///
    /// # Safety
    /// This CPU holds [`LOCK`], and no other reference is in use.
    unsafe fn get<'a>() -> &'a mut Writer {
        // SAFETY: the caller holds the lock and has no other reference.
        unsafe { &mut *WRITER.0.get() }
    }

    /// Puts encoded bytes into the ring.
    fn store(next: &mut u64, bytes: &[u8]) {
        let ring = RING.0.0.get().cast::<u8>();
        for &byte in bytes {
            let at = *next as usize % RING_BYTES;
            // SAFETY: `at` lies in the ring; only the holder of the lock writes, and only the runner, outside, reads.
            // Volatile, since nothing in the guest ever reads it back.
            unsafe { ring.add(at).write_volatile(byte) };
            *next += 1;
        }
    }
}

/// Tells the runner where the ring is.
pub(crate) fn init() {
    SHARED.defmt.capacity.store(RING_BYTES as u64, Ordering::Relaxed);
    // Release: pairs with the runner's read of the address before the capacity (tests/litmus/hand-over).
    SHARED.defmt.at.store(machine::physical(&RING).0, Ordering::Release);
}

#[global_logger]
struct RingLogger;

// SAFETY: `acquire` takes a lock that masks interrupts and excludes other CPUs; what interrupts its holder all the same
// is counted and writes nothing.
unsafe impl Logger for RingLogger {
    fn acquire() {
        let entry = LOCK.enter();
        if entry.nested {
            NESTED.fetch_add(1, Ordering::Relaxed);
            // Interrupts were masked by the outer entry, which also restores them.
            LOCK.leave(entry);
            return;
        }
        // SAFETY: this CPU holds the lock, and no frame is being written.
        let writer = unsafe { Writer::get() };
        writer.entry = Some(entry);
        writer.encoder.start_frame(|bytes| Writer::store(&mut writer.next, bytes));
    }

    unsafe fn flush() {}

    unsafe fn write(bytes: &[u8]) {
        if NESTED.load(Ordering::Relaxed) > 0 {
            return;
        }
        // SAFETY: called between `acquire` and `release` only, so this CPU holds the lock; no code that it interrupted
        // is in a frame.
        let writer = unsafe { Writer::get() };
        writer.encoder.write(bytes, |encoded| Writer::store(&mut writer.next, encoded));
    }

    unsafe fn release() {
        if NESTED.load(Ordering::Relaxed) > 0 {
            NESTED.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // SAFETY: called once after each `acquire`, so this CPU holds the lock.
        let writer = unsafe { Writer::get() };
        writer.encoder.end_frame(|bytes| Writer::store(&mut writer.next, bytes));
        // Release: pairs with the runner's read of the count before the bytes (tests/litmus/hand-over).
        SHARED.defmt.written.store(writer.next, Ordering::Release);
        if let Some(entry) = writer.entry.take() {
            LOCK.leave(entry);
        }
    }
}

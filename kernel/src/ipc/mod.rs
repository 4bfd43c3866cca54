//! Messages between processes: synchronous call, answer and wait; short ones in registers, long ones copied through
//! pages that each side has pinned in its own mm.
//!
//! # The guarantee
//!
//! A message is delivered whole and unmixed, or the sender gets an error; whatever anybody does to either address space
//! meanwhile. *Whole*: all bytes of the sender's buffer, as they were mapped there at one moment during the call, are
//! mapped in the receiver's buffer at one moment before the receiver goes on. *Unmixed*: nothing else is among them.
//! What others who can write to the sender's pages store there during the call may come along or not; that is between
//! them. So it is where the receiver's buffer has one of these pages too. At most once: after an error the receiver may have the message nevertheless (the sender's patience
//! ended while it was being received), never half of it.
//!
//! # The protocol
//!
//! 1. **The sender pins its pages when it calls, in its own mm**, which its CPU has loaded: by `pin_user_pages_fast`,
//!    with the slow path behind. Then it walks its buffer again ([`pin`]): if all pages are the ones pinned they were
//!    all mapped at one moment. If not it begins again, and gives up after a few tries.
//! 2. **The receiver pins its pages before it waits, in its own mm**, in the same way, for writing.
//! 3. Whoever comes second copies, page by page, from pinned frame to pinned frame, by the direct map. It walks
//!    nobody's tables for that.
//! 4. **The receiver walks its buffer once more before it goes on**, on its own CPU with its own mm loaded. If all
//!    pages are the ones that were pinned, the message lies where it will be read, and lay there whole when that walk
//!    began. If one is not, the receiver is told that its buffer is gone and the sender that its message did not
//!    arrive. A caller waits for the answer anyway, so it can be told; one that answers waits until its long answer has
//!    arrived, unless it asks not to.
//!
//! So no CPU ever walks tables of an mm that it has not loaded: such a walk would stand outside of every flush mask,
//! and a strategy could not cover it.
//!
//! # What a pin keeps, and what not
//!
//! A pin keeps the *frame*: it is not freed, and not given to anybody else. It does not keep the *mapping*:
//!
//! - **Unmapped, discarded, revoked** after the pin: on the sender's side the frame has what it had, and that is sent:
//!   as of the call. On the receiver's side the message goes into a frame that nobody maps; step 4 finds out. (Guard
//!   `IpcPinAgain`: without the second walks a message is reported as delivered that nobody can read, or is sent of
//!   pages that never were mapped together.)
//! - **Copied on write** after the pin: fork copies a pinned page at once, so it stays with the mm that pinned it. A
//!   page that was shared before and is pinned for reading is copied by whoever writes to it: while it is pinned it has
//!   more than one reference, so nobody writes in place.
//! - **Collapsed**: refused, since a pinned page has one reference too many. A collapse that came before the pin is
//!   waited for by the walk's recheck, as any other.
//! - **A shared table that is left**: the frames are the object's, and stay where they are in the other mms.
//! - **Reclaimed tables**: a table says nothing about the frame.
//!
//! Without the pins a frame may be freed and given to another process between the walk and the copy (guard `IpcPin`): a
//! stranger's memory would be sent, or overwritten.
//!
//! # Bounds
//!
//! A thread waits as long as its patience says, in ticks. Whoever waits is told when what it waits for ends: the
//! endpoint, the receiver that has its call, the process. Pinned frames are charged to the process that pins them for
//! as long as they are pinned. A receiver that waits again without having answered has refused to: the caller is told
//! so.

pub mod exchange;
pub mod pin;
pub(crate) mod queue;
pub(crate) mod reply;
pub mod wait;

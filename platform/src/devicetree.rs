//! What the devicetree says about the machine: memory, CPUs, console, interrupt controller, firmware, command line.
//!
//! Every statement that the kernel relies on is checked, and what is missing or makes no sense is a [`TreeError`]; the
//! console may not be known yet when that happens, so the caller reports it on the `virt` machine's fixed console
//! address.

use arch_aarch64::firmware::{Conduit, RedistributorRegion};
use arch_aarch64::sgi;
use arrayvec::ArrayVec;
use fdt::Fdt;
use fdt::node::FdtNode;
use kernel::addr::{MAX_CPUS, PAGE_SIZE, PhysAddr};
use kernel::boot::MemoryRegion;

use blob::BlobError;

pub mod blob;

/// The most memory regions, and the most regions of redistributors, that are looked at.
pub const MAX_REGIONS: usize = 16;

/// Why the machine cannot be used as described.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TreeError {
    /// It is not a devicetree.
    #[error("{0}")]
    Blob(#[from] BlobError),
    /// Something is not there at all.
    #[error("devicetree: no {0}")]
    Missing(&'static str),
    /// The `reg` of a node is missing, has cells of odd sizes, or wraps around.
    #[error("devicetree: bad address of {0}")]
    Address(&'static str),
    /// There is more of something than there is room for.
    #[error("devicetree: more than {1} {0}")]
    TooMany(&'static str, usize),
    /// CPUs are started in a way that is not PSCI, or PSCI is called in an unknown way.
    #[error("devicetree: CPUs are not started by PSCI through hvc or smc")]
    NoPsci,
    /// A CPU that interrupts cannot be sent to.
    #[error("devicetree: {0}")]
    Unaddressable(#[from] sgi::Unaddressable),
    /// Two CPUs have the same number.
    #[error("devicetree: two CPUs with affinity {0:#x}")]
    SameCpu(u64),
}

/// What the machine is.
#[derive(Clone, Debug)]
pub struct Described<'a> {
    /// RAM: ascending, not overlapping, page-aligned.
    pub memory: ArrayVec<MemoryRegion, MAX_REGIONS>,
    /// Affinities of the CPUs, in the tree's order.
    pub cpus: ArrayVec<u64, MAX_CPUS>,
    /// How the firmware is called.
    pub conduit: Conduit,
    /// Registers of the first PL011.
    pub uart: PhysAddr,
    /// Registers of the distributor.
    pub distributor: PhysAddr,
    /// The redistributors.
    pub redistributors: ArrayVec<RedistributorRegion, MAX_REGIONS>,
    /// The command line; empty where there is none.
    pub command_line: &'a str,
}

/// Reads the devicetree at the start of `bytes`.
pub fn read(bytes: &[u8]) -> Result<Described<'_>, TreeError> {
    let blob = blob::check(bytes)?;
    let fdt = Fdt::new(blob).map_err(|_| TreeError::Missing("usable header"))?;
    let mut found = Described {
        memory: ArrayVec::new(),
        cpus: ArrayVec::new(),
        conduit: Conduit::Hvc,
        uart: PhysAddr(0),
        distributor: PhysAddr(0),
        redistributors: ArrayVec::new(),
        command_line: "",
    };
    let (mut psci, mut uart, mut gic, mut enable_methods) = (false, false, false, true);

    // One pass over all nodes. The parser's own look-ups resolve aliases, which a corrupted tree can make go round in
    // circles.
    for node in fdt.all_nodes() {
        match text(node, "device_type") {
            Some("memory") => add_memory(&mut found.memory, node)?,
            Some("cpu") if enabled(node) => {
                enable_methods &= matches!(text(node, "enable-method"), None | Some("psci"));
                add_cpu(&mut found.cpus, node)?;
            }
            _ => {}
        }
        if compatible(node, "arm,pl011") && !uart {
            found.uart = addresses(node, "console")?.next().ok_or(TreeError::Address("console"))?.0;
            uart = true;
        }
        if compatible(node, "arm,gic-v3") {
            let mut parts = addresses(node, "interrupt controller")?;
            found.distributor = parts.next().ok_or(TreeError::Address("interrupt controller"))?.0;
            add_redistributors(&mut found.redistributors, node, parts)?;
            gic = true;
        }
        if compatible(node, "arm,psci-1.0") || compatible(node, "arm,psci-0.2") {
            found.conduit = match text(node, "method") {
                Some("hvc") => Conduit::Hvc,
                Some("smc") => Conduit::Smc,
                _ => return Err(TreeError::NoPsci),
            };
            psci = true;
        }
        if node.name == "chosen"
            && let Some(arguments) = text(node, "bootargs")
        {
            found.command_line = arguments;
        }
    }

    for (there, what) in [
        (!found.memory.is_empty(), "memory"),
        (!found.cpus.is_empty(), "CPUs"),
        (uart, "PL011 console"),
        (gic, "GICv3 interrupt controller (use -M virt,gic-version=3)"),
    ] {
        if !there {
            return Err(TreeError::Missing(what));
        }
    }
    if found.cpus.len() > 1 && !(psci && enable_methods) {
        return Err(TreeError::NoPsci);
    }
    found.memory.sort_unstable_by_key(|region| region.start);
    if found.memory.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(TreeError::Address("memory"));
    }
    Ok(found)
}

fn add_memory(memory: &mut ArrayVec<MemoryRegion, MAX_REGIONS>, node: FdtNode<'_, '_>) -> Result<(), TreeError> {
    for (start, bytes) in addresses(node, "memory")? {
        let end = start.0.checked_add(bytes).ok_or(TreeError::Address("memory"))?;
        let start = PhysAddr(start.0.checked_next_multiple_of(PAGE_SIZE).ok_or(TreeError::Address("memory"))?);
        let end = PhysAddr(end & !(PAGE_SIZE - 1));
        if start < end {
            memory
                .try_push(MemoryRegion { start, end })
                .map_err(|_| TreeError::TooMany("memory regions", MAX_REGIONS))?;
        }
    }
    Ok(())
}

fn add_cpu(cpus: &mut ArrayVec<u64, MAX_CPUS>, node: FdtNode<'_, '_>) -> Result<(), TreeError> {
    // One or two cells of address, no size: the number is the whole value.
    let hw_id = node.property("reg").and_then(|reg| reg.as_usize()).ok_or(TreeError::Address("CPU"))? as u64;
    sgi::check(hw_id)?;
    if hw_id & !sgi::AFFINITY != 0 {
        return Err(TreeError::Address("CPU"));
    }
    if cpus.contains(&hw_id) {
        return Err(TreeError::SameCpu(hw_id));
    }
    cpus.try_push(hw_id).map_err(|_| TreeError::TooMany("CPUs", MAX_CPUS))
}

/// The regions after the distributor's; what follows them belongs to the compatibility interface.
fn add_redistributors(
    regions: &mut ArrayVec<RedistributorRegion, MAX_REGIONS>,
    node: FdtNode<'_, '_>,
    parts: impl Iterator<Item = (PhysAddr, u64)>,
) -> Result<(), TreeError> {
    let count = node.property("#redistributor-regions").map_or(Some(1), |property| property.as_usize()).unwrap_or(0);
    for (start, bytes) in parts.take(count) {
        start.0.checked_add(bytes).ok_or(TreeError::Address("interrupt controller"))?;
        regions
            .try_push(RedistributorRegion { start, bytes })
            .map_err(|_| TreeError::TooMany("redistributor regions", MAX_REGIONS))?;
    }
    if regions.is_empty() { Err(TreeError::Address("interrupt controller")) } else { Ok(()) }
}

/// Start and size of every range that the node's `reg` names.
fn addresses<'a>(
    node: FdtNode<'_, 'a>,
    of: &'static str,
) -> Result<impl Iterator<Item = (PhysAddr, u64)> + use<'a>, TreeError> {
    let ranges = node.reg().ok_or(TreeError::Address(of))?;
    Ok(ranges.map(|range| (PhysAddr(range.starting_address as u64), range.size.unwrap_or(0) as u64)))
}

fn enabled(node: FdtNode<'_, '_>) -> bool {
    matches!(text(node, "status"), None | Some("okay" | "ok"))
}

fn compatible(node: FdtNode<'_, '_>, with: &str) -> bool {
    node.compatible().is_some_and(|list| list.all().any(|one| one == with))
}

/// A property that is one string.
fn text<'a>(node: FdtNode<'_, 'a>, name: &str) -> Option<&'a str> {
    let value = node.property(name)?.value;
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    core::str::from_utf8(&value[..end]).ok()
}

#[cfg(test)]
mod tests;

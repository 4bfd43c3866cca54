"""How gdb shows the kernel: tables, frames, address spaces, and the states of a table that was unlinked.

`cargo xtask run --gdb` loads this file. It reads the guest's memory and changes nothing. Beside what `print`, `info locals`
and `backtrace` show by it there are three commands:

    kernel cpus         what each CPU is doing, which mm it has loaded, and the tables that its walks hold
    kernel frame PFN    what a frame is
    kernel table PFN    the entries of the table in a frame that are not empty
"""

import re

import gdb
import gdb.printing

LEVELS = ["PTE", "PMD", "PUD", "PGD"]
NO_FRAME = 0xFFFFFFFF
IDLE = (1 << 64) - 1


def word(value):
    """The number inside an atomic, a cell or a type with one field."""
    value = value.referenced_value() if value.type.strip_typedefs().code == gdb.TYPE_CODE_REF else value
    while value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        # Markers have no size.
        fields = [field for field in value.type.fields() if field.type.sizeof > 0]
        if len(fields) != 1:
            raise gdb.error("%s is not one number" % value.type)
        value = value[fields[0]]
    return int(value)


def arch():
    """The kernel's name of the architecture, as its types have it."""
    for name in ["arch_x86_64::X86", "arch_aarch64::Aarch64"]:
        try:
            gdb.lookup_type("kernel::machine::Machine<%s>" % name)
            return name
        except gdb.error:
            pass
    raise gdb.error("the image has no types of the kernel; `cargo xtask build` makes one that has")


def machine():
    """The one `Machine`."""
    name = arch()
    found = re.search(r"(0x[0-9a-f]+)\s+\S*::MACHINE$", gdb.execute("info variables -q MACHINE", to_string=True), re.M)
    if not found:
        raise gdb.error("the image has no symbol MACHINE")
    once = "spin::once::Once<kernel::machine::Machine<%s>, spin::relax::Spin>" % name
    once = gdb.Value(int(found.group(1), 16)).cast(gdb.lookup_type(once).pointer()).dereference()
    # It is initialised before any other CPU is started; until then there is nothing to show.
    if word(once["status"]) != 2:
        raise gdb.error("the machine is not set up yet")
    inner = once["data"]
    while not inner.type.strip_typedefs().name.startswith("kernel::machine::Machine<"):
        fields = [field for field in inner.type.fields() if field.type.sizeof > 0]
        inner = inner[fields[-1]]
    return inner


def slice_of(value):
    """The elements of a Rust slice."""
    data, length = value["data_ptr"], int(value["length"])
    return [(data + index).dereference() for index in range(length)]


def frame_of(pfn):
    """The descriptor of a frame."""
    table = machine()["frames"]
    index = pfn - word(table["first"])
    if not 0 <= index < int(table["frames"]["length"]):
        raise gdb.error("there is no frame %#x" % pfn)
    return (table["frames"]["data_ptr"] + index).dereference()


def enum_name(name, number):
    """What a number of a kernel's enum is called."""
    for field in gdb.lookup_type(name).fields():
        if field.enumval == number:
            return field.name.rsplit("::", 1)[-1]
    return str(number)


def state_of(frame):
    return enum_name("kernel::mm::frame::FrameState", word(frame["state"]))


def describe_frame(frame):
    """A frame in words."""
    state, owner, generation = state_of(frame), word(frame["owner"]), word(frame["generation"])
    if state in ["Table", "UnlinkedTable"]:
        linked = "" if state == "Table" else "unlinked "
        level, entries = LEVELS[word(frame["level"]) & 3], word(frame["population"])
        return "%s%s table of mm %d, maps from %#x, %d entries, generation %d" % (
            linked, level, owner, word(frame["address"]), entries, generation)
    if state in ["Anon", "File"]:
        whose = "mm" if state == "Anon" else "file"
        return "page of %s %d at %#x, %d references, %d of them pins, generation %d" % (
            whose, owner, word(frame["address"]), word(frame["refs"]), word(frame["pins"]), generation)
    return {"Free": "free", "Kernel": "the kernel's", "Batch": "a batch of a gather", "Tail": "inside a 2 MiB page"}[state]


def describe_pfn(pfn):
    """A frame's number, and what the frame is, if that can be known yet."""
    if pfn == NO_FRAME:
        return "no frame"
    try:
        return "frame %#x (%s)" % (pfn, describe_frame(frame_of(pfn)))
    except (gdb.error, gdb.MemoryError):
        return "frame %#x" % pfn


def cpus_of(mask):
    """The CPUs of a mask."""
    words = mask["words"]
    low, high = words.type.range()
    bits = [(64 * index + bit) for index in range(low, high + 1) for bit in range(64) if word(words[index]) >> bit & 1]
    return "{%s}" % ", ".join(map(str, bits))


class Printer:
    """Shows a value in words; `gdb.ValuePrinter` came with a later gdb."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        try:
            return self.words()
        except (gdb.error, gdb.MemoryError) as error:
            return "<%s>" % error


class PfnPrinter(Printer):
    def words(self):
        return describe_pfn(int(self.value["__0"]))


class VirtAddrPrinter(Printer):
    def words(self):
        return "%#x" % int(self.value["__0"])


class FramePrinter(Printer):
    def words(self):
        return describe_frame(self.value)


class TablePrinter(Printer):
    def words(self):
        return "table in %s" % describe_pfn(word(self.value["pfn"]))


class TableGuardPrinter(Printer):
    def words(self):
        return "locked: table in %s" % describe_pfn(word(self.value["table"]["pfn"]))


class MaskPrinter(Printer):
    def words(self):
        return "CPUs %s" % cpus_of(self.value)


class CoveragePrinter(Printer):
    def words(self):
        return "acknowledged by CPUs %s, %d of them interrupted" % (
            cpus_of(self.value["acknowledged"]), int(self.value["interrupts"]))


class MmPrinter(Printer):
    def words(self):
        return "mm %d, root in frame %#x, translations may be on CPUs %s" % (
            int(self.value["id"]), word(self.value["root"]), cpus_of(self.value["mask"]))


def place_of(place):
    """Where an unlinked table was."""
    return "table in %s, taken out of the %s table in frame %#x, which mapped it at %#x of mm %d" % (
        describe_pfn(word(place["table"]["pfn"])), LEVELS[int(place["level"].cast(gdb.lookup_type("u8"))) & 3],
        word(place["parent"]["pfn"]), word(place["va"]), int(place["mm"]["id"]))


class UnlinkedPrinter(Printer):
    def words(self):
        return "UNLINKED, to be flushed: %s" % place_of(self.value["__0"])


class FlushedPrinter(Printer):
    def words(self):
        return "FLUSHED (%s), to be drained or retired: %s" % (
            CoveragePrinter(self.value["coverage"]).words(), place_of(self.value["place"]))


class DrainedPrinter(Printer):
    def words(self):
        fresh = "; another table is to take its place" if bool(self.value["fresh"]) else ""
        return "DRAINED, may be used again%s: %s" % (fresh, place_of(self.value["place"]))


class CpuPrinter(Printer):
    def words(self):
        return describe_cpu(self.value)


class MachinePrinter(Printer):
    """Its members are too many to be shown at once."""

    def words(self):
        frames = self.value["frames"]
        return "machine of %d CPUs, %d frames from %#x on" % (
            int(self.value["cpus"]["length"]), int(frames["frames"]["length"]), word(frames["first"]))


def describe_cpu(cpu):
    """What a CPU is doing."""
    status = cpu["status"].dereference()
    doing = enum_name("kernel::record::shared::Doing", word(status["doing"]))
    text = "cpu %d: %s" % (word(cpu["id"]), doing)
    if word(status["waits_for"]) != NO_FRAME:
        text += ", waits for cpu %d" % word(status["waits_for"])
    ghost = cpu["ghost"]
    for index in range(min(word(ghost["depth"]), 2)):
        note = ghost["notes"][index]
        held = [word(note["holds"][level]) for level in range(4)]
        tables = ["%s %#x" % (LEVELS[level], pfn) for level, pfn in enumerate(held) if pfn != NO_FRAME]
        text += "; in walk %d to %#x of mm %d, holds %s" % (
            word(note["walk"]), word(note["address"]), word(note["mm"]), ", ".join(tables) or "no table")
    return text


class KernelCommand(gdb.Command):
    """What the kernel is doing: `kernel cpus`, `kernel frame PFN`, `kernel table PFN`."""

    def __init__(self):
        super().__init__("kernel", gdb.COMMAND_DATA, prefix=True)


class CpusCommand(gdb.Command):
    """What each CPU is doing, and the tables that its walks hold."""

    def __init__(self):
        super().__init__("kernel cpus", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        for cpu in slice_of(machine()["cpus"]):
            print(describe_cpu(cpu.dereference()))


class FrameCommand(gdb.Command):
    """What a frame is: `kernel frame PFN`."""

    def __init__(self):
        super().__init__("kernel frame", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        print(describe_pfn(int(gdb.parse_and_eval(argument))))


class TableCommand(gdb.Command):
    """The entries of the table in a frame that are not empty: `kernel table PFN`."""

    def __init__(self):
        super().__init__("kernel table", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        pfn = int(gdb.parse_and_eval(argument))
        print(describe_pfn(pfn))
        # QEMU's monitor reads physical memory, whatever is mapped.
        memory = gdb.execute("monitor xp /512gx %#x" % (pfn << 12), to_string=True)
        entries = [int(text, 16) for line in memory.splitlines() for text in line.split(":", 1)[-1].split()]
        for index, entry in enumerate(entries):
            if entry:
                print("  %3d: %#018x" % (index, entry))


PRINTERS = [
    ("pfn", r"^kernel::addr::Pfn$", PfnPrinter),
    ("address", r"^kernel::addr::VirtAddr$", VirtAddrPrinter),
    ("frame", r"^kernel::mm::frame::Frame<", FramePrinter),
    ("table", r"^kernel::mm::table::Table<", TablePrinter),
    ("table guard", r"^kernel::mm::table::TableGuard<", TableGuardPrinter),
    ("mm", r"^kernel::mm::address_space::Mm<", MmPrinter),
    ("mask", r"^kernel::smp::mask::(Atomic)?CpuMask$", MaskPrinter),
    ("coverage", r"^kernel::tlb::coverage::Coverage$", CoveragePrinter),
    ("unlinked", r"^kernel::mm::state::Unlinked<", UnlinkedPrinter),
    ("flushed", r"^kernel::mm::state::Flushed<", FlushedPrinter),
    ("drained", r"^kernel::mm::state::Drained<", DrainedPrinter),
    ("cpu", r"^kernel::smp::cpu::Cpu<", CpuPrinter),
    ("machine", r"^kernel::machine::Machine<", MachinePrinter),
]


def register():
    collection = gdb.printing.RegexpCollectionPrettyPrinter("kernel")
    for name, pattern, printer in PRINTERS:
        collection.add_printer(name, pattern, printer)
    gdb.printing.register_pretty_printer(gdb.current_objfile(), collection, replace=True)
    for command in [KernelCommand, CpusCommand, FrameCommand, TableCommand]:
        command()


register()

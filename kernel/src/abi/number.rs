//! The system calls: one table.

macro_rules! numbers {
    ($($name:ident = $number:literal, $arguments:literal: $text:literal;)*) => {
        /// The number of a system call; the doc comment of each names its arguments in order, then `->` its results.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u64)]
        pub enum Number { $(#[doc = $text] $name = $number,)* }

        impl Number {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Number] = &[$(Number::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Number::$name => stringify!($name),)* }
            }

            /// How many arguments it takes; further words are not looked at.
            pub fn arguments(self) -> usize {
                match self { $(Number::$name => $arguments,)* }
            }
        }
    };
}

numbers! {
    Null = 0, 0: "Nothing.";
    Yield = 1, 0: "Lets another thread of the same priority run.";
    Exit = 2, 1: "`status`: ends the calling thread.";
    Call = 3, 7: "`endpoint and info`, six words: sends a message and waits for the answer -> as `Wait`.";
    ReplyWait = 4, 7: "`endpoint and info`, six words: answers the call that was received last, then waits for the next -> as `Wait`.";
    Wait = 5, 1: "`endpoint or notification, and info`: waits for a call, or for bits -> `badge and info`, six words; or the bits.";
    Signal = 6, 2: "`notification`, `bits`: sets bits, waking who waits.";
    SetBuffer = 7, 3: "`address` (of a page), `bytes`, `slot`: where long messages and capabilities that the calling thread receives go.";
    SetPatience = 8, 1: "`ticks`: how long the calling thread waits for others; 0 for ever.";
    Copy = 9, 4: "`from`, `to`, `rights`, `badge`: derives a capability with no more rights; a badge can be given to one that has none.";
    Delete = 10, 1: "`slot`: empties it. If it held the object's original capability, the object ends.";
    Revoke = 11, 1: "`slot`: deletes everything derived from it, and undoes all mappings made with it or with them.";
    Grant = 12, 5: "`process`, `their slot`, `slot`, `rights`, `badge`: derives a capability into another process's table.";
    MakeEndpoint = 13, 1: "`slot`.";
    MakeNotification = 14, 1: "`slot`.";
    MakeFrames = 15, 2: "`slot`, `pages`: memory in 4 KiB pages, zeroed.";
    MakeShared = 16, 2: "`slot`, `pages`: up to 512 pages of 2 MiB, zeroed, in a GiB of addresses.";
    MakeProcess = 17, 6: "`slot`, `slots`, `frames`, `bytes`, `spaces`, `highest priority`: an empty address space, with an account out of the caller's.";
    MakeThread = 18, 6: "`process`, `slot`, `entry`, `stack`, `argument`, `priority and CPU << 32`: a thread that is ready to run.";
    Map = 19, 6: "`process`, `frames`, `address`, `offset`, `bytes`, `rights`.";
    MapAnonymous = 20, 4: "`process`, `address`, `bytes`, `rights`: zeroed pages of its own, allocated when they are touched.";
    Unmap = 21, 2: "`process`, `address`: undoes the mapping that begins there.";
    Protect = 22, 3: "`process`, `address`, `rights`: changes what the mapping that begins there allows: of frames that the process has mapped itself up to what its capability does, of those that another has mapped there up to what that asked for.";
    Discard = 23, 3: "`process`, `address`, `bytes`: drops the contents of anonymous pages, which are mapped as before. If that may leave a part of a collapsed page, which stays whole till then, whoever made the mapping pays for the rest of such pages, once.";
    Collapse = 24, 2: "`process`, `address`: makes the 512 anonymous pages there one of 2 MiB.";
    Migrate = 25, 2: "`thread`, `CPU`.";
    SetPriority = 26, 2: "`thread`, `priority`.";
    End = 27, 2: "`thread or process`, `status`.";
    SetPager = 28, 2: "`process`, `endpoint`: who is called for faults that the kernel cannot handle by itself.";
    Bind = 29, 3: "`interrupt or thread`, `notification`, `bits`: to be set when it fires, for as long as the capability to the line is there; or once when it ends, also if that to the thread is gone by then.";
    Acknowledge = 30, 2: "`interrupt`, `when`: it may fire again; if it is the timer of the CPU that this is called on, at that time, in instructions, or earlier: the kernel's own ticks are no rarer than they were. 0: whenever those come.";
    Identify = 31, 1: "`slot` -> `kind`, `rights`, `badge`.";
    Balance = 32, 0: "-> frames, bytes, spaces in use; frames, bytes, spaces left.";
    Load = 33, 5: "`process`, `module`, three words of a name: maps a program of the module into the process -> `entry`.";
    Populate = 34, 3: "`process`, `address`, `bytes` (up to 2 MiB): makes the pages there present now.";
    Ended = 35, 1: "`thread or process` -> 1 if it has ended (a process: and is taken down), `status`.";
    Clock = 36, 0: "-> instructions so far; how many it were when this CPU last woke from idling; timer interrupts of other CPUs since: if there were none, under an engine where CPUs take turns, no other CPU's instructions are among these; when the last timer interrupt of this CPU was due; when the next is.";
    Plan = 37, 1: "`meter` -> operations, seed, CPUs, number of the mode, three words of the workload's name.";
    Begin = 38, 1: "`meter`: an operation begins, whose interrupts and invalidations are counted.";
    Finish = 39, 1: "`meter`: it is over -> instructions that it took.";
    Progress = 40, 2: "`meter`, `syncs`: the run goes on; so many tables were about to be used again because of this program, that it knows of, since it last said so.";
    MakeHuge = 41, 2: "`slot`, `pages`: memory in pages of 2 MiB, zeroed, that is mapped 4 KiB at a time until it is collapsed.";
    Truncate = 42, 3: "`frames`, `offset`, `bytes`: drops what is in these pages, and takes them from all who have mapped them; they are zeroed pages when they are next touched.";
    Fork = 43, 7: "`process`, `slot`, `slots`, `frames`, `bytes`, `spaces`, `highest priority`: as `MakeProcess`, with a copy of the anonymous memory of a process, which is shared until either writes. What that has mapped of frames or tables is for others to map.";
    Tell = 44, 5: "`meter`, `times`, `least`, `median`, `longest`: how often a program has measured how long something took, and what; what is told last counts.";
}

impl Number {
    /// The call with this number.
    pub fn from_word(word: u64) -> Option<Number> {
        usize::try_from(word).ok().and_then(|n| Number::ALL.get(n)).copied()
    }
}

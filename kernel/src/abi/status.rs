//! How a system call ended: the first word of its answer.

macro_rules! statuses {
    ($($name:ident = $number:literal: $text:literal;)*) => {
        /// How a system call ended.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u64)]
        pub enum Status { $(#[doc = $text] $name = $number,)* }

        impl Status {
            /// All statuses, in the order of their numbers.
            pub const ALL: &'static [Status] = &[$(Status::$name,)*];

            /// In words.
            pub fn in_words(self) -> &'static str {
                match self { $(Status::$name => $text,)* }
            }
        }
    };
}

statuses! {
    Done = 0: "done";
    BadNumber = 1: "no system call has this number";
    BadArgument = 2: "an argument is outside of what the call takes";
    NoCapability = 3: "the slot is empty, or beyond the table";
    WrongKind = 4: "the capability names another kind of object";
    Forbidden = 5: "the capability does not have the right that this takes";
    SlotTaken = 6: "the slot is in use";
    Quota = 7: "the account has not enough left";
    OutOfMemory = 8: "the machine has no frame of the needed size left";
    Overlaps = 9: "something else is mapped there";
    NotMapped = 10: "nothing is mapped there";
    Gone = 11: "the object does not exist any more";
    TimedOut = 12: "nobody came in the time that the thread waits";
    TooLong = 13: "the message is longer than the buffer, or there is no buffer";
    BufferGone = 14: "the buffer is not mapped as it must be, or did not stay so";
    Undelivered = 15: "the message did not reach its receiver";
    Unanswered = 16: "the receiver did not answer";
    NobodyWaits = 17: "there is no caller to answer";
    Busy = 18: "somebody else uses the pages; try again";
    NotPopulated = 19: "not all pages are there";
    NoProgram = 20: "the module has no program of this name, or what it has is none";
}

impl Status {
    /// The status with this number.
    pub fn from_number(n: u64) -> Option<Status> {
        usize::try_from(n).ok().and_then(|n| Status::ALL.get(n)).copied()
    }
}

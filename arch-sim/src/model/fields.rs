//! Small numbers packed into a word, so that a state is a few words: states are copied and hashed millions of times a
//! second.

/// A type around a `u64` with named ranges of bits, each with a getter and a setter.
macro_rules! packed {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $get:ident / $set:ident: $width:literal at $shift:expr;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub(crate) struct $name(pub(crate) u64);

        impl $name {
            $(
                $(#[$doc])*
                #[inline(always)]
                pub(crate) const fn $get(self) -> u8 {
                    ((self.0 >> $shift) & ((1 << $width) - 1)) as u8
                }
                #[inline(always)]
                pub(crate) fn $set(&mut self, value: u8) {
                    debug_assert!((value as u64) < 1 << $width, concat!(stringify!($get), " is out of range"));
                    let mask: u64 = ((1 << $width) - 1) << $shift;
                    self.0 = self.0 & !mask | (value as u64) << $shift;
                }
            )*
        }
    };
}
pub(crate) use packed;

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

/// The flags that a caller of this gem can give: those of [splice(2)], and `WAITALL`.
///
/// [splice(2)]: https://man7.org/linux/man-pages/man2/splice.2.html
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// What the kernel is told.
    pub kernel: SpliceFlags,
    /// Fail rather than wait.
    pub nonblock: bool,
    /// Give memory away, where that can be done.
    pub gift: bool,
    /// Go on until all of the length has moved.
    pub waitall: bool,
}

impl Flags {
    /// The kernel has no such flag; the bit is far from those it has.
    pub const WAITALL: u32 = 1 << 31;

    /// No flag at all.
    pub const NONE: Self =
        Self { kernel: SpliceFlags::empty(), nonblock: false, gift: false, waitall: false };

    /// Takes the bits apart; `EINVAL` when one of them means nothing.
    pub fn from_bits(bits: u32) -> rustix::io::Result<Self> {
        let known = SpliceFlags::MOVE | SpliceFlags::NONBLOCK | SpliceFlags::MORE | SpliceFlags::GIFT;
        let kernel = bits & !Self::WAITALL;
        if kernel & !known.bits() != 0 {
            return Err(Errno::INVAL);
        }
        let kernel = SpliceFlags::from_bits_retain(kernel);
        Ok(Self {
            kernel,
            nonblock: kernel.contains(SpliceFlags::NONBLOCK),
            gift: kernel.contains(SpliceFlags::GIFT),
            waitall: bits & Self::WAITALL != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_bits_and_no_others() {
        let flags = Flags::from_bits(2 | 4 | Flags::WAITALL).unwrap();
        assert!(flags.nonblock && flags.waitall);
        assert_eq!(flags.kernel, SpliceFlags::NONBLOCK | SpliceFlags::MORE);
        assert!(!Flags::from_bits(0).unwrap().nonblock);
        for bit in 4..31 {
            assert_eq!(Flags::from_bits(1 << bit), Err(Errno::INVAL), "bit {bit}");
        }
    }
}

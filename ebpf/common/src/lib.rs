//! Integers that the kernel side and the user side share.
//!
//! Only integers and arrays of them: what the other side wrote may be any bit
//! pattern, and a `bool` of 2 or an enum without such an arm would be
//! undefined behaviour. `bytemuck` refuses padding and anything else at
//! compile time. Logic that both sides need stands here too, as safe functions
//! that are tested on the host.
//!
//! A change of a record changes the layout of pinned maps. `probes/build.rs`
//! hashes this folder into the name of the directory they are pinned in, so
//! an engine with another layout never reads them.
#![no_std]
#![deny(unsafe_code)]

pub mod bucket;
pub mod guard;
pub mod ids;
pub mod trace;
pub mod traffic;

/// Declares records as plain bytes for aya too. The one unsafe macro of this crate.
macro_rules! record {
    ($($name:ty),+ $(,)?) => {
        $(
            #[cfg(feature = "user")]
            #[expect(unsafe_code, reason = "aya has a trait of its own for what bytemuck has proved")]
            // SAFETY: aya asks for a type without padding that any bytes make;
            // the assertion holds only for types whose `bytemuck::Pod` derive proved both.
            unsafe impl aya::Pod for $name {}
            const _: () = {
                const fn proved<T: bytemuck::Pod>() {}
                proved::<$name>();
            };
        )+
    };
}
pub(crate) use record;

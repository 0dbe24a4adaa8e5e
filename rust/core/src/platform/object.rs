//! Declares an object: its words, their types, and where the kernel has them.

/// Declares a struct of words and, on `Ref`s of it, one accessor a field.
///
/// `pub struct Name of Word = "kernel_name", BYTES { field: Type = OFFSET, … }`; the offset decides
/// the cache line (false sharing included), as the kernel lays the struct out. On native the host's
/// lines count instead: of `PaddedWord`, each word has one to itself.
#[macro_export]
macro_rules! object {
    ($(#[$meta:meta])* pub struct $name:ident of $word:ident = $kernel:literal, $bytes:literal {
        $( $(#[$fmeta:meta])* $field:ident : $type:ty = $offset:literal ),* $(,)?
    }) => {
        $(#[$meta])*
        pub struct $name<P: $crate::platform::Platform> {
            $( $field: $crate::platform::$word<P>, )*
        }

        impl<P: $crate::platform::Platform> $crate::platform::Object for $name<P> {
            type P = P;
            const NAME: &'static str = $kernel;
            fn new(line: $crate::platform::Line, _shape: u32) -> Self {
                Self { $( $field: $crate::platform::Word::new(line, $offset).into(), )* }
            }
            fn lines(_shape: u32) -> u32 {
                ($bytes as u32).div_ceil($crate::platform::Line::BYTES)
            }
            fn clear(&self) {
                $( self.$field.poke(0); )*
            }
            fn field_text(_arena: &str, offset: u32, word: u64) -> String {
                $(
                    if offset == $offset {
                        return <$type as $crate::platform::Value>::text(word);
                    }
                )*
                <u64 as $crate::platform::Value>::text(word)
            }
            fn field_name(offset: u32) -> String {
                // Two fields in one word of the kernel's: the first stands for both.
                let fields: &[(u32, &str)] = &[$( ($offset, stringify!($field)) ),*];
                match fields.iter().find(|(at, _)| *at == offset) {
                    Some((_, name)) => (*name).to_owned(),
                    None => format!("+{offset:#x}"),
                }
            }
        }

        impl<'k, P: $crate::platform::Platform> $crate::platform::Ref<'k, $name<P>> {
            $(
                $(#[$fmeta])*
                #[inline(always)]
                pub fn $field(self) -> $crate::platform::Field<'k, P, $type> {
                    let (generation, expect) = self.stamp();
                    $crate::platform::Field::new(&self.object().$field, generation, expect)
                }
            )*
        }
    };
}

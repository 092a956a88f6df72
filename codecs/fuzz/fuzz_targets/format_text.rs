#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kerbside_fuzz::devices::format_text(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kerbside_fuzz::mqtt::mqtt(data));

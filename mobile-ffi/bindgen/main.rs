//! UniFFI's generator as a program of this workspace, so that its version is always that of the library it reads.
//! `scripts/generate-bindings` calls it.

fn main() {
    uniffi::uniffi_bindgen_main();
}

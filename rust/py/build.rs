//! Passes on what `PyO3` found out about the interpreter that this build is for.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}

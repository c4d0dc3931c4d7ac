//! Times the cases, and counts what each allocates: `cargo bench -p backstop-bench --profile instructions [FILTER]`.
#![allow(clippy::expect_used)] // A case that cannot be prepared is not timed; it says why.

use backstop_bench::Case;
use divan::{AllocProfiler, Bencher};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = Case::all())]
fn case(bencher: Bencher<'_, '_>, case: &Case) {
    let run = case.prepare().expect("the case is ready");
    bencher.bench_local(run);
}

//! tmp
#![allow(clippy::print_stdout)]
use backstop_model::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    for run in runs(Width::Standard)
        .iter()
        .filter(|r| args.len() < 2 || r.shape.name == args[1])
        .filter(|r| args.len() < 3 || r.about == args[2])
    {
        let began = std::time::Instant::now();
        let f = run.explore(Walk::Whole, 2);
        let Ok(f) = f else { return };
        println!(
            "{:14} {:10} {:50} {:9} {:9} {:3} {:?}",
            run.shape.name,
            run.about,
            run.bounds.short(),
            f.states,
            f.unique,
            f.depth,
            began.elapsed()
        );
        if let Some((told, c)) = f.broken {
            println!("{told}\n{}\n{}\n{}", c.violation, c.trail.join("\n"), c.transcript);
        }
    }
}

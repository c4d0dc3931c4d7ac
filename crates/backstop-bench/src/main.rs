//! `backstop-bench`: lists the cases, or runs one as often as it is told and says nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)] // Its output is what it is for.

use backstop_bench::Case;
use std::process::ExitCode;

const USAGE: &str = "usage: backstop-bench [CASE TIMES]; without arguments it lists the cases";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            for case in Case::all() {
                println!("{}\t{}", case.name, case.about);
            }
            ExitCode::SUCCESS
        }
        [name, times] => match run(name, times) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                eprintln!("backstop-bench: {text}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, times: &str) -> Result<(), String> {
    let times: u64 = times.parse().map_err(|_| USAGE.to_owned())?;
    let case = Case::all().into_iter().find(|case| case.name == name).ok_or("there is no such case")?;
    let run = case.prepare().map_err(|broken| broken.to_string())?;
    for _ in 0..times {
        run();
    }
    Ok(())
}

//! What the program gives to shells and to `man`.

use crate::cli::{DONE, FAILED, USAGE, ends};
use crate::common::server::backstop;
use crate::common::tool::{run, said};
use std::path::Path;
use std::process::Command;

#[test]
fn the_completion_is_a_script_that_bash_takes_and_that_knows_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let script = ends(&backstop(here, &["completions", "bash"]), DONE);
    std::fs::write(here.join("backstop.bash"), &script).unwrap();
    let checked = run(Command::new("bash").args(["-n", "backstop.bash"]).current_dir(here));
    assert!(checked.status.success(), "{}", said(&checked));
    // As bash asks it when somebody types `backstop inter<TAB>`, and two words further on.
    let ask = "source backstop.bash
        complete_at() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _backstop backstop \"${@: -1}\" \"${@: -2:1}\"; echo \"${COMPREPLY[@]}\"; }
        complete_at backstop inter; complete_at backstop branch re; complete_at backstop intervention list --fin";
    let asked = run(Command::new("bash").args(["-c", ask]).current_dir(here));
    assert_eq!(said(&asked), "intervention\nretry resolve\n--fin-code\n", "{}", said(&asked));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(ends(&backstop(here, &["completions", shell]), DONE).contains("intervention"), "{shell}");
    }
    ends(&backstop(here, &["completions", "cobol"]), USAGE);
}

#[test]
fn there_is_a_man_page_for_each_verb_and_the_first_names_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let first = ends(&backstop(here, &["man"]), DONE).replace("\\-", "-");
    for verb in ["serve", "saga cancel", "branch resolve", "intervention list", "top", "error-table", "man"] {
        assert!(first.contains(&format!("backstop {verb}")), "{verb} is not in\n{first}");
    }
    ends(&backstop(here, &["man", "--dir", "pages/man1"]), DONE);
    let pages = files(&here.join("pages/man1"));
    for page in
        ["backstop.1", "backstop-saga-cancel.1", "backstop-intervention-list.1", "backstop-error-table.1"]
    {
        assert!(pages.contains(&page.to_owned()), "{page} is not in {pages:?}");
    }
    assert!(
        !pages.iter().any(|page| page.contains("demo-service")),
        "what is hidden stays hidden: {pages:?}"
    );
    let page = ends(&backstop(here, &["man", "saga", "cancel"]), DONE);
    assert_eq!(page, std::fs::read_to_string(here.join("pages/man1/backstop-saga-cancel.1")).unwrap());
    assert!(page.contains("dry\\-run"), "{page}");
    let none = ends(&backstop(here, &["man", "saga", "dance"]), FAILED);
    assert!(none.contains("there is no verb `saga dance`"), "{none}");
}

fn files(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder).unwrap();
    all.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

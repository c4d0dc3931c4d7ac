//! A page of the documents as a reader follows it: the commands of its `sh` blocks in order, each with what the page
//! says that it prints.
//!
//! # Conventions of a page
//! * A fenced `sh` block holds commands. A line that ends in `\`, or within a quoted string, goes on.
//! * The fenced block of another kind right after it is what its last command prints. `…` stands for any characters,
//!   a line of `…` alone for any lines; how much white space there is does not matter.
//! * A command ends with 0, unless what it prints begins with `ERROR:`, or its block has a line `# exit code N`.
//! * `<!-- test: WORD WORD … -->` on a line of its own tells the test what to do before the next block; a reader does
//!   not see it.

use std::path::Path;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Words for the test.
    Prepare { line: usize, words: Vec<String> },
    /// A command for a shell.
    Run(Line),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins in the page.
    pub(crate) line: usize,
    /// As a shell takes it.
    pub(crate) text: String,
    /// How it must end; `None`: not with 0.
    pub(crate) exit: Option<i32>,
    /// What the page says that it prints.
    pub(crate) prints: Option<String>,
}

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The line after its fence.
    pub(crate) line: usize,
    /// What stands behind the fence: `sh`.
    pub(crate) kind: String,
    /// Its text.
    pub(crate) text: String,
    /// Nothing but blank lines stands between it and the block before.
    follows: bool,
}

/// The text of a page, by its path from the top of the repository.
pub(crate) fn text(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Every fenced block of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut follows = false;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                let kind = kind.trim().to_owned();
                open = Some(Block { line: number + 2, kind, text: String::new(), follows });
            }
            (None, None) => follows &= line.trim().is_empty(),
            (Some(_), Some(_)) => {
                blocks.extend(open.take());
                follows = true;
            }
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

/// What a reader of the page does, in order.
pub(crate) fn deeds(page: &str) -> Vec<Deed> {
    let mut deeds: Vec<(usize, Deed)> = prepared(page);
    let mut last: Option<usize> = None;
    for block in blocks(page) {
        if block.kind == "sh" {
            let lines = commands(&block);
            last = (!lines.is_empty()).then(|| deeds.len() + lines.len() - 1);
            deeds.extend(lines.into_iter().map(|line| (line.line, Deed::Run(line))));
        } else if let Some(Deed::Run(line)) = last.take().filter(|_| block.follows).map(|at| &mut deeds[at].1)
        {
            if line.exit == Some(0) && block.text.starts_with("ERROR:") {
                line.exit = None;
            }
            line.prints = Some(block.text);
        }
    }
    deeds.sort_by_key(|(line, _)| *line);
    deeds.into_iter().map(|(_, deed)| deed).collect()
}

fn prepared(page: &str) -> Vec<(usize, Deed)> {
    let mut found = Vec::new();
    for (number, line) in page.lines().enumerate() {
        let words = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(words) = words {
            let words = words.split_whitespace().map(str::to_owned).collect();
            found.push((number + 1, Deed::Prepare { line: number + 1, words }));
        }
    }
    found
}

fn commands(block: &Block) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    let mut open = String::new();
    let mut exit = 0;
    let mut begins = block.line;
    for (number, line) in block.text.lines().enumerate() {
        if open.is_empty() {
            begins = block.line + number;
            if let Some(code) = line.strip_prefix("# exit code ") {
                let digits: String = code.chars().take_while(char::is_ascii_digit).collect();
                exit = digits.parse().unwrap_or_else(|_| panic!("line {begins}: {line}"));
                continue;
            }
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
        }
        open.push_str(line);
        open.push('\n');
        if !line.ends_with('\\') && open.matches('\'').count().is_multiple_of(2) {
            let text = std::mem::take(&mut open);
            found.push(Line { line: begins, text, exit: Some(std::mem::take(&mut exit)), prints: None });
        }
    }
    assert!(open.is_empty(), "line {begins}: this command does not end:\n{open}");
    found
}

/// Whether this is what the page shows; if not, the first line of the page that is not there.
pub(crate) fn compare(shown: &str, printed: &str) -> Result<(), String> {
    let plain = |text: &str| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).filter(|line| !line.is_empty()).collect()
    };
    let (shown, printed) = (plain(shown), plain(printed));
    // reached[k]: the lines of the page so far may end before line k of what was printed.
    let mut reached = vec![false; printed.len() + 1];
    reached[0] = true;
    for line in &shown {
        let mut next = vec![false; printed.len() + 1];
        for at in 0..=printed.len() {
            if line == "…" {
                next[at] = reached[at] || (at > 0 && next[at - 1]);
            } else {
                next[at] = at > 0 && reached[at - 1] && fits(line, &printed[at - 1]);
            }
        }
        if !next.contains(&true) {
            return Err(line.clone());
        }
        reached = next;
    }
    if reached[printed.len()] { Ok(()) } else { Err("(the end of the block)".to_owned()) }
}

/// `…` is any characters.
fn fits(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let (Some((first, rest)), true) = (parts.split_first(), parts.len() > 1) else { return pattern == line };
    let Some(mut left) = line.strip_prefix(first) else { return false };
    let (last, middle) = rest.split_last().expect("there are two at least");
    for part in middle {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[test]
fn a_page_is_read_as_a_reader_follows_it() {
    let page = "Say\n\n```sh\n# about\na -d '{\n\"b\"}' \\\n  c\nd\n```\n\n```json\n{ \"e\": … }\n```\n\n\
                <!-- test: break f -->\n```sh\n# exit code 3: rolled back\ng\n```\nWords.\n```text\nnot of g\n```\n\
                ```sh\nh\n```\n```text\nERROR:\n```\n";
    let run = |line, text: &str, exit, prints: Option<&str>| {
        Deed::Run(Line { line, text: text.to_owned(), exit, prints: prints.map(str::to_owned) })
    };
    let expected = [
        run(5, "a -d '{\n\"b\"}' \\\n  c\n", Some(0), None),
        run(8, "d\n", Some(0), Some("{ \"e\": … }\n")),
        Deed::Prepare { line: 15, words: vec!["break".to_owned(), "f".to_owned()] },
        run(18, "g\n", Some(3), None),
        run(25, "h\n", None, Some("ERROR:\n")),
    ];
    assert_eq!(deeds(page), expected);
}

#[test]
fn what_is_printed_is_held_against_the_page_line_by_line() {
    let printed = "{\n  \"id\": \"pay-1\",\n  \"at\": \"2026\",\n  \"seq\": \"4\"\n}\n";
    for shown in ["…", "{\n…\n\"seq\": \"4\"\n}", "{\n\"id\": \"pay-…\",\n\"at\": …,\n…\n}", printed]
    {
        assert_eq!(compare(shown, printed), Ok(()), "{shown}");
    }
    for (shown, missing) in [
        ("{\n…\n\"seq\": \"5\"\n}", "\"seq\": \"5\""),
        ("{\n\"at\": …,\n…\n}", "\"at\": …,"),
        ("{\n\"id\": \"pay-1\",", "(the end of the block)"),
        ("{\n\"id\": \"…-2\",\n…", "\"id\": \"…-2\","),
    ] {
        assert_eq!(compare(shown, printed), Err(missing.to_owned()), "{shown}");
    }
}

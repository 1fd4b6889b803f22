//! What a document shows in blocks: commands, files and what commands answer.

/// A thing that a document shows, with the line it begins at.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A command for a shell; it may span lines.
    Command(String),
    /// A file that is named right before it: "`jetcopy.toml`:".
    File(String, String),
    /// What the command before it prints.
    Output(String),
}

/// A block of code.
struct Block {
    line: usize,
    /// `sh` also where it is only indented.
    language: String,
    text: String,
    /// The last line of prose before it.
    before: String,
    /// Whether only empty lines stand between it and the block before it.
    follows: bool,
}

/// What a document shows, from top to bottom.
pub(super) fn steps(document: &str) -> Vec<Step> {
    let (mut steps, mut after_commands) = (Vec::new(), false);
    for block in blocks(document) {
        let line = block.line;
        let commands_before = std::mem::replace(&mut after_commands, block.language == "sh");
        match block.language.as_str() {
            "sh" => {
                let commands = commands(&block.text);
                steps.extend(commands.into_iter().map(|command| Step { line, kind: Kind::Command(command) }));
            }
            "text" if commands_before && block.follows => {
                steps.push(Step { line, kind: Kind::Output(block.text) });
            }
            _ => {
                let named = block.before.trim().strip_suffix("`:").and_then(|text| text.rsplit_once('`'));
                if let Some((_, name)) = named {
                    steps.push(Step { line, kind: Kind::File(name.to_owned(), block.text) });
                }
            }
        }
    }
    steps
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut before, mut follows, mut in_list) = (String::new(), false, false);
    let mut lines = document.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let (text, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if let Some(language) = text.strip_prefix("```") {
            let mut block = Block {
                line: index + 1,
                language: language.to_owned(),
                text: String::new(),
                before: before.clone(),
                follows,
            };
            for (_, line) in lines.by_ref() {
                if line.trim_start().starts_with("```") {
                    break;
                }
                // Without the indentation of the list that the block is in.
                block.text = block.text + line.get(indent..).unwrap_or_default() + "\n";
            }
            blocks.push(block);
            follows = true;
        } else if indent >= 4 && !in_list {
            let mut block = Block {
                line: index + 1,
                language: "sh".into(),
                text: format!("{}\n", &line[4..]),
                before: before.clone(),
                follows,
            };
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("    ")) {
                block.text = block.text + &line[4..] + "\n";
            }
            blocks.push(block);
            follows = true;
        } else if !text.is_empty() {
            let begins_item = text.starts_with("- ")
                || text.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
            in_list = begins_item || (in_list && indent > 0);
            line.clone_into(&mut before);
            follows = false;
        }
    }
    blocks
}

/// The commands of a block, without its comments.
fn commands(text: &str) -> Vec<String> {
    let (mut commands, mut command) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        command = command + line + "\n";
        if let Some((_, end)) = line.split_once("<<'") {
            let end = end.trim_end_matches('\'');
            for line in lines.by_ref() {
                command = command + line + "\n";
                if line == end {
                    break;
                }
            }
        } else {
            let (whole, closed) = without_comment(&command);
            if !closed || whole.ends_with(['\\', '|']) {
                continue;
            }
            command = whole;
        }
        let done = std::mem::take(&mut command).trim().to_owned();
        commands.extend(Some(done).filter(|done| !done.is_empty()));
    }
    assert!(command.is_empty(), "a command without its end: {command}");
    commands
}

/// A command without the comment at its end, and whether its quotes are closed.
fn without_comment(command: &str) -> (String, bool) {
    let (mut quote, mut before) = (None, ' ');
    for (at, character) in command.char_indices() {
        match (quote, character) {
            (None, '#') if before.is_whitespace() => return (command[..at].trim_end().to_owned(), true),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        before = character;
    }
    (command.trim_end().to_owned(), quote.is_none())
}

#[test]
fn commands_files_and_answers_are_found_with_continuations_and_without_comments() {
    let document = "\
Do `a`:

    one --with 'a # b'   # a comment
    echo '{\"a\":
      1}' |
      two

1. An item, with `f.toml`:

   ```toml
   x = 1
   ```

   ```sh
   psql <<'SQL'
   SELECT 1; -- # no comment
   SQL
   ```

   ```text
   1
   ```

       not a block

Prose.

```text
no answer
```
";
    let found: Vec<String> =
        steps(document).iter().map(|step| format!("{} {:?}", step.line, step.kind)).collect();
    assert_eq!(
        found,
        [
            r#"3 Command("one --with 'a # b'")"#,
            r#"3 Command("echo '{\"a\":\n  1}' |\n  two")"#,
            r#"10 File("f.toml", "x = 1\n")"#,
            r#"14 Command("psql <<'SQL'\nSELECT 1; -- # no comment\nSQL")"#,
            r#"20 Output("1\n")"#,
        ]
    );
}

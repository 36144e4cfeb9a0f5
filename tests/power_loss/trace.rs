//! What a process asked of its files, as strace wrote it down.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader},
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::strace;

/// Every call that changes a file or a directory, or makes one durable. The last ones nobody uses: they are refused when
/// they turn up, because the model of the disk does not know them.
const CALLS: &str = "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,lseek,fsync,fdatasync,sync_file_range,\
    ftruncate,truncate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,\
    fallocate,link,linkat,symlink,symlinkat,copy_file_range,sendfile,splice,sync,syncfs,dup,dup2,dup3";

/// A line of the trace: the order in which things began and ended.
pub(super) type Moment = usize;

/// One call that touched a file.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) begin: Moment,
    /// `None` if the process died in the middle of it.
    pub(super) end: Option<Moment>,
    pub(super) call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Opened so that it is made if it is missing, and emptied if asked.
    Create {
        path: PathBuf,
        empties: bool,
    },
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Cut {
        path: PathBuf,
        length: u64,
    },
    /// A file's content and size, or a directory's entries.
    Sync {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
}

/// `command` under strace, which writes what it does to `output`. The process started is `command` itself.
pub(super) fn recorded(command: &Command, output: &Path) -> Command {
    let mut strace = strace();
    strace.args(["-D", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "33554432", "-e", "signal=kill", "-e"]);
    strace.arg(format!("trace={CALLS}")).arg("-o").arg(output).arg("--");
    strace.arg(command.get_program()).args(command.get_args());
    strace
}

/// Reads a trace of a process that began in `directory`; what lies outside of `within` is left out.
pub(super) fn read(trace: &Path, directory: &Path, within: &Path, first: Moment) -> Vec<Operation> {
    let mut reader = Reader { directory, within, offsets: HashMap::new(), sizes: HashMap::new(), found: Vec::new() };
    let mut begun: HashMap<String, (Moment, String)> = HashMap::new();
    let mut lines = BufReader::with_capacity(1 << 20, File::open(trace).expect("strace has written it"));
    let mut line = String::new();
    for now in first.. {
        line.clear();
        if lines.read_line(&mut line).expect("readable") == 0 {
            break;
        }
        let line = line.trim_end();
        let (thread, text) = line.split_once(' ').unwrap_or_else(|| panic!("not a line of strace: {}", shown(line)));
        let text = text.trim_start();
        if text.starts_with("+++") || text.starts_with("---") {
            continue;
        }
        if let Some(text) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread.to_owned(), (now, text.to_owned()));
        } else if text.starts_with("<... ") {
            let (_, rest) = text.split_once(" resumed>").expect("a call goes on");
            let (begin, mut text) = begun.remove(thread).expect("what goes on has begun");
            text.push_str(rest);
            reader.take(&text, begin, Some(now));
        } else {
            reader.take(text, now, Some(now));
        }
    }
    begun.into_values().for_each(|(begin, text)| reader.take(&text, begin, None));
    let mut found = reader.found;
    found.sort_by_key(|operation| (operation.end.is_none(), operation.end.unwrap_or(operation.begin)));
    found
}

struct Reader<'a> {
    directory: &'a Path,
    within: &'a Path,
    /// Where the next plain write of a descriptor goes; `None` at its file's end, wherever that is.
    offsets: HashMap<u32, Option<u64>>,
    /// How long files are that were appended to, as far as was seen.
    sizes: HashMap<PathBuf, u64>,
    found: Vec<Operation>,
}

impl Reader<'_> {
    /// One whole call: `name(arguments) = result`, or without its result if it never had one.
    fn take(&mut self, text: &str, begin: Moment, end: Option<Moment>) {
        let (name, rest) = text.split_once('(').unwrap_or_else(|| panic!("not a call: {}", shown(text)));
        // What the process died in returns `?`, if anything.
        let end = end.filter(|_| !rest.ends_with("= ?"));
        let result = end.map(|_| rest).and_then(result_of);
        if end.is_some() && result.is_none() {
            return;
        }
        let arguments = arguments(rest);
        let call = match name {
            "openat" => self.open(&arguments, result),
            "write" => self.write(&arguments, result),
            "lseek" => {
                if let (Some(descriptor), Some(result)) = (arguments[0].number(), result) {
                    self.offsets.insert(descriptor as u32, Some(result));
                }
                None
            }
            "pwrite64" => arguments[0].path().map(|path| {
                let mut bytes = arguments[1].text();
                bytes.truncate(result.map_or(bytes.len(), |written| written as usize));
                Call::Write { path, offset: arguments[3].number().expect("an offset"), bytes }
            }),
            "fsync" | "fdatasync" => arguments[0].path().map(|path| Call::Sync { path }),
            // It starts writing, and promises nothing.
            "sync_file_range" => None,
            "ftruncate" => {
                let length = arguments[1].number().expect("a length");
                arguments[0].path().map(|path| Call::Cut { path, length })
            }
            "mkdir" => Some(Call::MakeDirectory { path: self.named(&arguments[0]) }),
            "rename" => Some(Call::Rename { from: self.named(&arguments[0]), to: self.named(&arguments[1]) }),
            "unlink" | "rmdir" => Some(Call::Remove { path: self.named(&arguments[0]) }),
            // Sockets are none of ours; anything else shows as a difference between the model and the real files.
            _ => None,
        };
        if let Some(call) = call
            && call.paths().iter().any(|path| path.starts_with(self.within))
        {
            self.found.push(Operation { begin, end, call });
        }
    }

    fn open(&mut self, arguments: &[Argument<'_>], result: Option<u64>) -> Option<Call> {
        let path = self.named(&arguments[1]);
        let has = |flag: &str| arguments[2].0.split('|').any(|set| set == flag);
        if let Some(descriptor) = result {
            self.offsets.insert(descriptor as u32, (!has("O_APPEND")).then_some(0));
        }
        (has("O_CREAT") || has("O_TRUNC")).then(|| Call::Create { path, empties: has("O_TRUNC") })
    }

    fn write(&mut self, arguments: &[Argument<'_>], result: Option<u64>) -> Option<Call> {
        let path = arguments[0].path().filter(|path| path.starts_with(self.within))?;
        let descriptor = arguments[0].number().expect("a descriptor") as u32;
        let mut bytes = arguments[1].text();
        bytes.truncate(result.map_or(bytes.len(), |written| written as usize));
        let position = self.offsets.entry(descriptor).or_insert(Some(0));
        let size = self.sizes.entry(path.clone()).or_insert(0);
        let offset = position.unwrap_or(*size);
        if let Some(position) = position {
            *position += bytes.len() as u64;
        }
        *size = (*size).max(offset + bytes.len() as u64);
        Some(Call::Write { path, offset, bytes })
    }

    fn named(&self, argument: &Argument<'_>) -> PathBuf {
        self.directory.join(path_of(argument.text()))
    }
}

impl Call {
    /// The paths that it names.
    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Call::Rename { from, to } => vec![from, to],
            Call::Create { path, .. }
            | Call::Write { path, .. }
            | Call::Cut { path, .. }
            | Call::Sync { path }
            | Call::MakeDirectory { path }
            | Call::Remove { path } => vec![path],
        }
    }

    /// What a write would change of a file.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        match self {
            Call::Write { offset, bytes, .. } => Some(*offset..*offset + bytes.len() as u64),
            Call::Cut { length, .. } => Some(*length..u64::MAX),
            _ => None,
        }
    }
}

/// An argument as strace wrote it.
struct Argument<'a>(&'a str);

impl Argument<'_> {
    fn number(&self) -> Option<u64> {
        let digits = self.0.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// The file behind a descriptor.
    fn path(&self) -> Option<PathBuf> {
        let (_, name) = self.0.split_once('<')?;
        Some(path_of(unescaped(name.strip_suffix('>')?)))
    }

    /// A string's bytes.
    fn text(&self) -> Vec<u8> {
        let quoted = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        unescaped(quoted.unwrap_or_else(|| panic!("cut off: {}", shown(self.0))))
    }
}

/// The arguments up to the closing bracket; nothing that stands in them has a comma, as all text is escaped.
fn arguments(text: &str) -> Vec<Argument<'_>> {
    let (arguments, _) = text.split_once(')').unwrap_or((text, ""));
    arguments.split(',').map(|argument| Argument(argument.trim())).collect()
}

/// The number returned, unless it is an error.
fn result_of(rest: &str) -> Option<u64> {
    let (_, result) = rest.rsplit_once('=')?;
    Argument(result.trim()).number()
}

/// `\x41\x42`: bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |byte: u8| if byte >= b'a' { byte - b'a' + 10 } else { byte.wrapping_sub(b'0') };
    text.as_bytes().chunks_exact(4).map(|escape| digit(escape[2]) << 4 | digit(escape[3])).collect()
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes).expect("paths of this test are text"))
}

fn shown(text: &str) -> &str {
    text.get(..200).unwrap_or(text)
}

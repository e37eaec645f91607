//! What stands below the options of each command: examples, and the codes of the program's end.

/// Of `tidegate` itself.
pub(super) const ALL: &str = "\
Exit codes:
    0  done
    1  something is not available; trying again may help
    2  the command line is wrong
   64  the configuration has a fault
   65  the event is refused as it is
  130  interrupted

Examples:
  tidegate serve --config tidegate.toml
  tidegate tail news
  tidegate publish news hello
  tidegate doctor";

pub(super) const SERVE: &str = "\
Examples:
  tidegate serve
  tidegate serve --config tidegate.toml
  tidegate serve --listen 127.0.0.1:8082";

pub(super) const PUBLISH: &str = "\
With DATA, one event is published. Without DATA, each line of a file or of standard input is published. With TOPIC, a line is the data \
of one event. Without TOPIC, a line is a JSON object such as {\"topic\":\"news\",\"data\":1}, as in a batch over HTTP.

Lines are published in order, in batches. If a line is refused, the gateway is lost or Ctrl-C is pressed, the command says how \
many lines are published, and which command publishes the rest, each line once.

Examples:
  tidegate publish news hello
  tidegate publish orders '{\"n\":1}' --type new
  tidegate publish news --file news.txt
  tidegate publish --file all.ndjson
  tail -f app.log | tidegate publish log";

pub(super) const TAIL: &str = "\
Standard output has only the events. Standard error says when the gateway is lost, when it is back, and where \
events may be missing. Terminals show colours, unless NO_COLOR is set.

Examples:
  tidegate tail news
  tidegate tail news orders --last 10
  tidegate tail orders --type new --json";

pub(super) const TOPICS: &str = "\
Examples:
  tidegate topics
  tidegate topics show orders
  tidegate topics history orders --json
  tidegate topics delete orders";

pub(super) const CHECK_CONFIG: &str = "\
Examples:
  tidegate check-config
  tidegate check-config --config a.toml";

pub(super) const HEALTHCHECK: &str = "\
Examples:
  tidegate healthcheck
  tidegate healthcheck --url http://h:8081";

pub(super) const FUNCTIONS: &str = "\
Examples:
  tidegate functions
  tidegate functions --install";

pub(super) const DOCTOR: &str = "\
Examples:
  tidegate doctor
  tidegate doctor --url https://example.com
  tidegate doctor --json";

pub(super) const KEY: &str = "\
Examples:
  tidegate key new";

pub(super) const TOKEN: &str = "\
A token is read from a file or from standard input, never from the command line, and is never printed.

Examples:
  tidegate token new --sub alice
  tidegate token explain token.txt";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(tidegate completions bash)
  tidegate completions fish | source";

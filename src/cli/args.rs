//! Arguments that several commands take.

use crate::config::Flags;
use clap::Args;
use std::path::PathBuf;

/// Where the configuration comes from. Every key is also `TIDEGATE__SECTION__KEY`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ServeArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// server.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// redis.url
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// replica.name
    #[arg(long, value_name = "NAME")]
    replica_name: Option<String>,
    /// logging.format: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// logging.level
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

impl ServeArgs {
    /// The same for the configuration, the environment below it.
    pub(super) fn flags(&self) -> Flags {
        let given = [
            ("server.listen", &self.listen),
            ("redis.url", &self.redis_url),
            ("replica.name", &self.replica_name),
            ("logging.format", &self.log_format),
            ("logging.level", &self.log_level),
        ];
        Flags {
            file: self.config.clone(),
            overrides: given
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.clone()?)))
                .collect(),
            environment: true,
        }
    }
}

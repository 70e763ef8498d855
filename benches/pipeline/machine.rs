//! Describes the machine that the benchmark runs on, and the part of it that others took meanwhile.

use std::fmt;

use crate::support::python;

/// Describes the machine and the services.
pub(crate) struct Machine(String);

/// Counts the processors' work so far, in clock ticks.
pub(crate) struct Ticks {
    all: f64,
    /// Ticks in which a processor of a virtual machine was wanted, and not there.
    stolen: f64,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let information = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            found.trim_start_matches([':', ' ', '\t']).to_owned()
        };
        let memory: f64 = information("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
        let versions = "import mlflow, platform, sklearn\n\
                        print('MLflow', mlflow.__version__, 'with scikit-learn', sklearn.__version__, end=', ')\n\
                        print('Python', platform.python_version(), end='')";
        Self(format!(
            "{} cores of {}, {:.1} GiB of memory, Linux {}; Apache Kafka {}, {}",
            std::thread::available_parallelism().map_or(0, usize::from),
            information("/proc/cpuinfo", "model name"),
            memory / 1024.0 / 1024.0,
            information("/proc/sys/kernel/osrelease", "").trim(),
            kafka_version(),
            python(versions, &[]),
        ))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
        let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).map(|ticks| ticks.parse().unwrap()).collect();
        Self { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or_default() }
    }

    /// Formats the share that was stolen since.
    pub(crate) fn since(&self) -> String {
        let now = Self::now();
        format!("steal {:.1} %", 100.0 * (now.stolen - self.stolen) / (now.all - self.all).max(1.0))
    }
}

/// Returns the version of the Kafka that `tests/run` installs.
fn kafka_version() -> &'static str {
    let pom = include_str!("../../tests/services/pom.xml");
    let after = pom.split_once("<artifactId>kafka_2.13</artifactId>").map_or("", |(_, after)| after);
    after.split_once("<version>").and_then(|(_, after)| after.split_once("</version>")).map_or("?", |(it, _)| it)
}

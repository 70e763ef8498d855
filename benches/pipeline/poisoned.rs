//! Measures rows a second when a model refuses one in a hundred requests, beside the same model without refused
//! requests. Requests that are not at fault have to be answered, which is checked as well.

use crate::backlog::Backlog;
use crate::batch::{FOREST, TEXT, numbers, of_numbers, of_texts, rate, register_forest, texts};
use crate::models::registry;
use crate::statistics::median;
use crate::support::python;
use crate::table::{Reach, Row};

const REQUESTS: usize = 40_000;
/// Number of requests of which one is poisoned.
const ONE_IN: usize = 100;
/// Number of turns of the two sides, so that a noisy minute hits both.
const TURNS: usize = 2;

const REACH: Reach = Reach::AtLeast(0.4);

/// Script that registers two models, at which nothing helps but to search: one refuses rows for a word, where other
/// models refuse missing cells, and one for nothing that could be seen in them.
const REGISTER: &str = "
import sys
import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
mlflow.set_tracking_uri(sys.argv[1])
class Picky(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if any(text.startswith('poison') for text in model_input['text']):
            raise ValueError('poisoned')
        return list(model_input['text'])
class Moody(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if any(int(text.split()[2]) % 100 == 7 for text in model_input['text']):
            raise ValueError('not today')
        return list(model_input['text'])
for name, model in (('picky', Picky()), ('moody', Moody())):
    mlflow.pyfunc.log_model(name='model', python_model=model, registered_model_name=name, pip_requirements=['mlflow'],
        signature=ModelSignature(inputs=Schema([ColSpec('string', 'text')])), metadata={'signalbox.batch': 'rows'})
";

/// Number in JSON that Python reads as infinity.
const INFINITE: [&str; 8] = ["1e999"; 8];

/// Describes one kind of refused requests.
struct Poison {
    what: &'static str,
    model: &'static str,
    /// Makes the payloads of the comparison, none of which is refused.
    fine: fn(usize) -> Vec<u8>,
    payload: fn(usize) -> Vec<u8>,
    reach: Reach,
}

const POISONS: [Poison; 4] = [
    Poison {
        what: "1 % of the rows are refused: they lack their text",
        model: TEXT,
        fine: texts::<1>,
        payload: |n| if is_poisoned(n) { of_texts(&["null".to_owned()]) } else { texts::<1>(n) },
        reach: REACH,
    },
    Poison {
        what: "the same through a random forest: they are infinite",
        model: FOREST,
        fine: numbers::<1>,
        payload: |n| if is_poisoned(n) { of_numbers(&[INFINITE.map(str::to_owned)]) } else { numbers::<1>(n) },
        reach: REACH,
    },
    Poison {
        what: "1 % of the rows are refused: they say a word",
        model: "models:/picky/1",
        fine: texts::<1>,
        payload: |n| if is_poisoned(n) { of_texts(&[format!("\"poison {n}\"")]) } else { texts::<1>(n) },
        reach: Reach::Open,
    },
    Poison {
        what: "1 % of the rows are refused: nothing tells them apart",
        model: "models:/moody/1",
        // Good rows have no number that ends as those of refused rows do.
        fine: |n| texts::<1>(if is_poisoned(n) { n + 1 } else { n }),
        payload: texts::<1>,
        reach: Reach::Open,
    },
];

pub(crate) fn run() -> Vec<Row> {
    let tracking_uri = registry(1).tracking_uri();
    python(REGISTER, &[&tracking_uri]);
    register_forest(&tracking_uri);
    POISONS.map(|poison| poison.beside_none(&tracking_uri)).into()
}

impl Poison {
    fn beside_none(&self, tracking_uri: &str) -> Row {
        let turns: [_; TURNS] = std::array::from_fn(|_| {
            let none = rate(tracking_uri, self.model, "", 1, Backlog::with(REQUESTS, self.fine));
            let some = Backlog { is_refused: is_poisoned, ..Backlog::with(REQUESTS, self.payload) };
            (rate(tracking_uri, self.model, "", 1, some), none)
        });
        Row {
            what: self.what,
            against: "the same model, none is",
            ours: median(turns.iter().map(|turn| turn.0)),
            theirs: median(turns.iter().map(|turn| turn.1)),
            unit: "rows/s",
            reach: self.reach,
        }
    }
}

fn is_poisoned(n: usize) -> bool {
    n % ONE_IN == 7
}

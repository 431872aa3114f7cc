//! Small grids on the bundled digits: real training that takes seconds.

/// Methods as they are written in a grid file. Each entry has a label of its own.
pub mod method {
    /// One ordinary network.
    pub const DETERMINISTIC: &str = r#"
        kind = "deterministic"
        label = "Deterministic (MSP)""#;
    /// Several passes of one network.
    pub const MC_DROPOUT: &str = r#"
        kind = "mc-dropout"
        label = "MC Dropout"
        rate = 0.1
        samples = 3"#;
    /// Two ordinary networks, one of which is that of [`DETERMINISTIC`].
    pub const DEEP_ENSEMBLE: &str = r#"
        kind = "deep-ensemble"
        label = "Deep Ensemble"
        networks = 2"#;
    /// On two data-parallel ranks.
    pub const BATCH_ENSEMBLE_ON_TWO: &str = r#"
        kind = "batch-ensemble"
        label = "BatchEnsemble"
        members = 2
        slots = 2"#;
    /// The method of the paper.
    pub const LP_BNN_PAPER: &str = r#"
        kind = "lp-bnn"
        label = "LP-BNN (paper)"
        preset = "paper"
        members = 2"#;
    /// The method of the authors' code.
    pub const LP_BNN_OFFICIAL: &str = r#"
        kind = "lp-bnn"
        label = "LP-BNN (official)"
        preset = "official"
        members = 2"#;
}

/// A grid file in the making.
#[derive(Clone, Debug)]
pub struct Grid {
    name: String,
    model: String,
    seeds: Vec<u64>,
    top: String,
    data: String,
    recipe: String,
    run: String,
    methods: Vec<String>,
}

impl Grid {
    /// An experiment of 8 steps an epoch, on two classes less than there are.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            model: "wrn-10-1".to_owned(),
            seeds: vec![0],
            top: String::new(),
            data: "[data.digits]\nheld-out = [8, 9]\ntrain-limit = 256\ntest-limit = 64".to_owned(),
            recipe: "epochs = 2".to_owned(),
            run: String::new(),
            methods: Vec::new(),
        }
    }

    /// Replaces the network.
    #[must_use]
    pub fn model(mut self, model: &str) -> Self {
        self.model = model.to_owned();
        self
    }

    /// Sets the seeds.
    #[must_use]
    pub fn seeds(mut self, seeds: &[u64]) -> Self {
        self.seeds = seeds.to_vec();
        self
    }

    /// Sets further keys of the top level.
    #[must_use]
    pub fn top(mut self, text: &str) -> Self {
        self.top = text.to_owned();
        self
    }

    /// Adds a method: the text below `[[method]]`.
    #[must_use]
    pub fn method(mut self, text: impl Into<String>) -> Self {
        self.methods.push(text.into());
        self
    }

    /// Replaces the keys of `[recipe]` that are not the same for all grids.
    #[must_use]
    pub fn recipe(mut self, text: &str) -> Self {
        self.recipe = text.to_owned();
        self
    }

    /// Sets the keys of `[run]`.
    #[must_use]
    pub fn run(mut self, text: &str) -> Self {
        self.run = text.to_owned();
        self
    }

    /// Replaces the axis of data sets.
    #[must_use]
    pub fn data(mut self, text: &str) -> Self {
        self.data = text.to_owned();
        self
    }

    /// Name of the experiment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn text(&self) -> String {
        let Self { name, model, seeds, top, data, recipe, run, methods } = self;
        let mut text =
            format!("name = \"{name}\"\nmodels = [\"{model}\"]\nseeds = {seeds:?}\n{top}\n{data}\n");
        text.push_str(&format!("[recipe]\nbatch-size = 32\n{recipe}\n[run]\n{run}\n"));
        for method in methods {
            text.push_str(&format!("[[method]]\n{method}\n"));
        }
        text
    }
}

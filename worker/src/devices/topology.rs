//! How GPUs are joined: the matrix of `nvidia-smi topo -m`.

use std::collections::BTreeMap;

/// What the matrix says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The GPU with the lowest number of those that NVLink joins to a GPU, directly or through others; itself for one that is
    /// joined to none.
    nvlink: BTreeMap<u32, u32>,
    /// Memory node nearest to a GPU, as the driver writes it.
    numa: BTreeMap<u32, String>,
}

impl Topology {
    /// Reads the matrix. What is missing or not understood is not known; nothing depends on it but labels.
    pub fn parse(text: &str) -> Self {
        let text = without_escapes(text);
        let mut lines = text.lines();
        let Some(head) = lines.find(|line| line.contains("GPU0")) else { return Self::default() };
        let columns: Vec<&str> = head.split('\t').map(str::trim).collect();
        let numa = columns.iter().position(|column| *column == "NUMA Affinity");
        let mut topology = Self::default();
        let mut links = Vec::new();
        for line in lines {
            let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
            let Some(gpu) = gpu(fields[0]) else { continue };
            topology.nvlink.insert(gpu, gpu);
            for (column, field) in columns.iter().zip(&fields) {
                if let (Some(other), true) = (self::gpu(column), is_nvlink(field)) {
                    links.push((gpu, other));
                }
            }
            let node = numa.and_then(|numa| fields.get(numa));
            if let Some(node) = node.filter(|node| node.starts_with(|c: char| c.is_ascii_digit())) {
                topology.numa.insert(gpu, (*node).to_owned());
            }
        }
        topology.join(&links);
        topology
    }

    /// As often as there are GPUs is often enough for the lowest number to reach all that it is joined to.
    fn join(&mut self, links: &[(u32, u32)]) {
        for _ in 0..self.nvlink.len() {
            for (one, other) in links {
                let (Some(&a), Some(&b)) = (self.nvlink.get(one), self.nvlink.get(other)) else { continue };
                self.nvlink.insert(*one, a.min(b));
                self.nvlink.insert(*other, a.min(b));
            }
        }
    }

    /// The labels of a worker on `host` that offers `gpus`: where all of them are joined, and where all are near one memory node.
    pub fn labels(&self, host: &str, gpus: &[u32]) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let group = common(gpus.iter().map(|gpu| self.nvlink.get(gpu)));
        if let Some(group) =
            group.filter(|group| self.nvlink.values().filter(|other| other == group).count() > 1)
        {
            labels.insert("nvlink".to_owned(), format!("{host}/{group}"));
        }
        if let Some(node) = common(gpus.iter().map(|gpu| self.numa.get(gpu))) {
            labels.insert("numa".to_owned(), format!("{host}/{node}"));
        }
        labels
    }
}

/// The value that all have.
fn common<'a, T: PartialEq>(mut values: impl Iterator<Item = Option<&'a T>>) -> Option<&'a T> {
    let first = values.next()??;
    values.all(|value| value == Some(first)).then_some(first)
}

fn gpu(name: &str) -> Option<u32> {
    name.strip_prefix("GPU")?.parse().ok()
}

fn is_nvlink(field: &str) -> bool {
    field.strip_prefix("NV").is_some_and(|links| links.parse::<u32>().is_ok_and(|links| links > 0))
}

/// The head of the matrix is underlined.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::super::fake::TWO_PAIRS;
    use super::*;

    fn labels(topology: &Topology, gpus: &[u32]) -> Vec<String> {
        topology.labels("n1", gpus).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn gpus_that_nvlink_joins_and_those_of_one_processor_have_a_label() {
        let topology = Topology::parse(TWO_PAIRS);
        assert_eq!(labels(&topology, &[0, 1]), ["numa=n1/0", "nvlink=n1/0"]);
        assert_eq!(labels(&topology, &[2, 3]), ["numa=n1/1", "nvlink=n1/2"]);
        // Two agents on a node that share a pair are near each other.
        assert_eq!(labels(&topology, &[3]), ["numa=n1/1", "nvlink=n1/2"]);
        assert_eq!(labels(&topology, &[0, 1, 2, 3]), [""; 0]);
    }

    #[test]
    fn a_ring_of_links_is_one_group() {
        let ring = "\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\nGPU0\t X \tNV1\tSYS\tSYS\t0-9\nGPU1\tNV1\t X \tSYS\tNV1\t0-9\n\
                    GPU2\tSYS\tSYS\t X \tNV2\t0-9\nGPU3\tSYS\tNV1\tNV2\t X \t0-9\n";
        assert_eq!(labels(&Topology::parse(ring), &[0, 1, 2, 3]), ["nvlink=n1/0"]);
    }

    #[test]
    fn a_gpu_alone_and_one_behind_pci_express_have_no_group() {
        let alone = "\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t0-15\tN/A\t\tN/A\n";
        assert_eq!(labels(&Topology::parse(alone), &[0]), [""; 0]);
        let two =
            "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tPHB\t0-15\t0\nGPU1\tPHB\t X \t0-15\t0\n";
        assert_eq!(labels(&Topology::parse(two), &[0, 1]), ["numa=n1/0"]);
    }

    #[test]
    fn what_is_no_matrix_says_nothing() {
        for text in ["", "nonsense", "\tGPU0\nGPU0", "\u{1b}[4mGPU0", "GPU0\tGPU1\nGPU0\tX\n\nGPUx\t"] {
            assert_eq!(labels(&Topology::parse(text), &[0, 1]), [""; 0], "{text}");
        }
    }
}

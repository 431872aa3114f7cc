use datasets::*;
fn main() {
    let folder = DataFolder::new("/tmp/realdata");
    let test = load(DatasetName::Cifar10, Split::Test, &folder, Completeness::Subset).unwrap();
    let some = test.select(&(0..500).collect::<Vec<_>>());
    std::fs::write("/tmp/clean.bin", some.pixels()).unwrap();
    for s in Severity::ALL {
        let r = corrupt(&some, Corruption::JpegCompression, s, std::num::NonZeroUsize::MIN).unwrap();
        std::fs::write(format!("/tmp/jpeg{}.bin", s.number()), r.pixels()).unwrap();
    }
}

//! Seal and open one value, per suite, with the key already expanded: what a protected field costs.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark stops at what it did not expect"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fieldveil::crypto::Suite;
use fieldveil::keys::Dek;
use fieldveil::name::KeyId;
use fieldveil::secret::Secret;

fn crypto(criterion: &mut Criterion) {
    let dek = Dek::new(
        KeyId([7; 16]),
        "clinic.patients.nhs_number",
        1,
        Secret::new([9; 96]),
    );
    for verb in ["seal", "open"] {
        let mut group = criterion.benchmark_group(verb);
        for suite in Suite::ALL {
            for len in [10usize, 100, 1000] {
                let value = vec![0x41u8; len];
                let mut sealed = Vec::new();
                dek.seal(suite, 2, &value, &mut sealed).expect("seals");
                let mut out = Vec::with_capacity(sealed.len());
                group.throughput(Throughput::Bytes(len as u64));
                group.bench_function(BenchmarkId::new(suite.name(), len), |bencher| {
                    bencher.iter(|| {
                        out.clear();
                        if verb == "seal" {
                            dek.seal(suite, 2, black_box(&value), &mut out).expect("seals");
                        } else {
                            dek.open(suite.subtype(), black_box(&sealed), &mut out)
                                .expect("opens");
                        }
                        black_box(out.len())
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, crypto);
criterion_main!(benches);

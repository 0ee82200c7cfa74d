//! `syntic bench`: kernels on the simulator, and a network of the tiny model.

use crate::{model, run, syntic};
use serde_json::Value;

fn kernels(more: &[&str]) -> crate::Ran {
    run(syntic().args(["bench", "kernels", "--device", "sim", "--threads", "2"]).args(more))
}

#[test]
fn kernels_are_checked_and_timed() {
    let all = [
        ("gemm_nt/text keys and values", "f16", vec!["gemm_nt_64x64_f16"]),
        ("group_norm/resnet 8x8 batch 2", "f16", vec!["group_norm_statistics_f16", "group_norm_apply_f16"]),
        ("layer_norm/8x8 batch 2", "bf16", vec!["layer_norm_forward_bf16"]),
        ("softmax/text", "f16", vec!["softmax_forward_f16"]),
        ("add/8x8 batch 2", "bf16", vec!["add_bf16"]),
        ("embedding/text batch 2", "f16", vec!["embed_forward_f16"]),
    ];
    for (name, dtype, entries) in all {
        let ran = kernels(&["--json", "--only", &format!("{name}/{dtype}")]).expect(0, &[]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["note"], "simulated: times mean nothing");
        assert!(report["version"].is_string() && report["device"].as_str().unwrap().starts_with("sim"), "{report}");
        let [row] = &report["results"].as_array().unwrap()[..] else { panic!("{report}") };
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(format!("{}/{}", row["op"].as_str().unwrap(), row["case"].as_str().unwrap()), name);
        assert_eq!((&row["dtype"], &row["kernels"]), (&dtype.into(), &entries.into()));
        assert_eq!((number("sets"), number("replays")), (2.0, 1.0));
        assert!(number("flops") > 0.0 && number("bytes") > 0.0 && row["shape"].is_object(), "{row}");
        assert!(number("low_us") > 0.0 && number("low_us") <= number("median_us") && number("median_us") <= number("high_us"));
        assert!(number("error") <= number("allowed") && number("allowed") > 0.0, "{row}");
    }
}

#[test]
fn tables_have_rates() {
    let ran = kernels(&["--only", "add/8x8 batch 2"]).expect(0, &[]);
    assert!(ran.stdout.contains("simulated: times mean nothing") && ran.stdout.contains("| GB/s | TFLOP/s |"), "{}", ran.stdout);
    assert!(ran.stdout.contains("| add | 8x8 batch 2 | f16 |"), "{}", ran.stdout);
}

#[test]
fn misfits_are_refused() {
    kernels(&["--only", "gemm_nt/none"]).expect(2, &["gemm_nt/none", "gemm_nt/ff2 64x64", "softmax/text", "OP/CASE/DTYPE"]);
    kernels(&["--only", "add/8x8 batch 2/bf16", "--dtype", "f16"]).expect(2, &["bf16", "--dtype f16"]);
    run(syntic().args(["bench", "kernels", "--device", "cpu"])).expect(2, &["--device cuda"]);
    run(syntic().args(["bench", "unet"])).expect(2, &["--model"]);
    run(syntic().args(["bench", "--model", "builtin", "kernels"])).expect(2, &["kernels"]);
}

#[test]
fn a_network_is_measured() {
    let ran =
        run(syntic().args(["bench", "text", "--json", "--reps", "1", "--warmup", "0", "--model"]).arg(model())).expect(0, &[]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["results"][0]["case"], "text batch 1");
}

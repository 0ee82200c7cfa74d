//! `syntic bench`: kernels on the simulator, and a network of the tiny model.

use crate::{model, run, syntic};
use serde_json::Value;

fn kernels(more: &[&str]) -> crate::Ran {
    run(syntic().args(["bench", "kernels", "--device", "sim", "--threads", "2"]).args(more))
}

#[test]
fn kernels_are_checked_and_timed() {
    let all = [
        ("gemm_nt/text keys and values", "f16", &["gemm_nt_"][..]),
        ("group_norm/resnet 8x8 batch 2", "f16", &["group_norm_statistics", "group_norm_apply"]),
        ("layer_norm/8x8 batch 2", "bf16", &["layer_norm_forward"]),
        ("softmax/text", "f16", &["softmax_"]),
        ("add/8x8 batch 2", "bf16", &["add_"]),
        ("embedding/text batch 2", "f16", &["embed_"]),
    ];
    for (name, dtype, entries) in all {
        let ran = kernels(&["--json", "--only", &format!("{name}/{dtype}")]).expect(0, &[]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["note"], "simulated: times mean nothing");
        assert!(report["version"].is_string() && report["device"].as_str().unwrap().starts_with("sim"), "{report}");
        let [row] = &report["results"].as_array().unwrap()[..] else { panic!("{report}") };
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(format!("{}/{}", row["op"].as_str().unwrap(), row["case"].as_str().unwrap()), name);
        assert_eq!(row["dtype"], dtype);
        let launched: Vec<&str> = row["kernels"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
        let fits = |(entry, begin): (&&str, &&str)| entry.starts_with(begin) && entry.ends_with(&format!("_{dtype}"));
        assert!(launched.len() == entries.len() && launched.iter().zip(entries).all(fits), "{row}");
        assert_eq!((number("sets"), number("replays")), (2.0, 1.0));
        assert!(number("flops") > 0.0 && number("bytes") > 0.0 && row["shape"].is_object(), "{row}");
        assert!(number("low_us") > 0.0 && number("low_us") <= number("median_us") && number("median_us") <= number("high_us"));
        assert!(number("error") <= number("allowed") && number("allowed") > 0.0, "{row}");
        assert!(number("share") > 0.0 && report["ceilings"]["matmul_tflops"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn tables_have_rates() {
    let ran = kernels(&["--only", "add/8x8 batch 2"]).expect(0, &[]);
    assert!(ran.stdout.contains("simulated: times mean nothing") && ran.stdout.contains("| GB/s | TFLOP/s |"), "{}", ran.stdout);
    assert!(ran.stdout.contains("| add | 8x8 batch 2 | f16 |"), "{}", ran.stdout);
}

#[test]
fn cases_are_listed_without_a_gpu() {
    let ran = run(syntic().args(["bench", "kernels", "--list", "--json", "--dtype", "bf16"])).expect(0, &[]);
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    let rows = list["results"].as_array().unwrap();
    let of = |op: &str| rows.iter().filter(|row| row["op"] == op).count();
    assert!(["gemm_nt", "conv2d", "attention", "group_norm"].iter().all(|op| of(op) > 3), "{list}");
    let causal = rows.iter().find(|row| row["case"] == "text encoder").unwrap();
    assert_eq!((&causal["dtype"], &causal["shape"]["causal"]), (&Value::from("bf16"), &Value::from(1)));
    let up = rows.iter().find(|row| row["case"] == "up 32x32").unwrap();
    assert_eq!((&up["shape"]["h"], &up["shape"]["up_h"]), (&Value::from(32), &Value::from(64)));
    assert!(up.get("median_us").is_none(), "nothing is measured");
}

#[test]
fn stages_are_measured_as_a_run_has_them() {
    let stages = |more: &[&str]| {
        let mut command = syntic();
        command.args(["bench", "stages", "--threads", "2", "--size", "64", "--steps", "2", "--reps", "1"]);
        run(command.args(["--warmup", "0", "--model"]).arg(model()).args(more))
    };
    let ran = stages(&["--device", "sim", "--batch", "2,1,2", "--json"]).expect(0, &[]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["note"], &report["steps"]), (&Value::from("simulated: times mean nothing"), &Value::from(2)));
    let evaluations = report["evaluations"].as_u64().unwrap();
    let rows = report["results"].as_array().unwrap();
    let named: Vec<(&str, u64)> =
        rows.iter().map(|row| (row["stage"].as_str().unwrap(), row["batch"].as_u64().unwrap())).collect();
    assert_eq!(named, [2, 1].map(|batch| ["text", "step", "decode", "batch"].map(|stage| (stage, batch))).concat());
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    for of_batch in rows.chunks(4) {
        let [text, step, decode, batch] = of_batch else { panic!("{report}") };
        let images = number(batch, "batch");
        assert_eq!((number(text, "runs"), number(step, "runs"), number(decode, "runs")), (1.0, evaluations as f64, images));
        assert!((number(batch, "images_per_s") * number(batch, "median_s") / images - 1.0).abs() < 1e-9, "{report}");
        assert_eq!(batch["finite"], format!("{images} of {images}"));
        for row in of_batch {
            assert!(number(row, "low_s") > 0.0 && number(row, "low_s") <= number(row, "high_s") && number(row, "share") > 0.0);
        }
    }
    // As a network alone is counted: of a batch, but for the decoding, which is an image's.
    let network = |part: &str, batch: &str| {
        let mut command = syntic();
        command.args([
            "bench",
            part,
            "--size",
            "64",
            "--guidance",
            "--batch",
            batch,
            "--reps",
            "1",
            "--warmup",
            "0",
            "--json",
            "--model",
        ]);
        let ran = run(command.arg(model())).expect(0, &[]);
        number(&serde_json::from_str::<Value>(&ran.stdout).unwrap()["results"][0], "gflop")
    };
    let gflop = |batch: usize, stage: usize| number(&rows[4 * batch + stage], "gflop");
    // A CPU has passes of their own for what a GPU does along with a product.
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.01, "{found} and {expected}: {report}");
    near(gflop(0, 1), network("unet", "2"));
    near(gflop(1, 1), network("unet", "1"));
    near(gflop(0, 2), network("vae", "1"));
    // With the keys and values that the denoising network makes of it.
    assert!(gflop(1, 0) > network("text", "1") && gflop(0, 0) == 2.0 * gflop(1, 0), "{report}");
    let bare = stages(&["--device", "sim", "--no-ceilings", "--json"]).expect(0, &[]);
    let bare: Value = serde_json::from_str(&bare.stdout).unwrap();
    assert!(bare["ceilings"].is_null() && bare["results"][0]["share"].is_null(), "{bare}");
    assert!(["matmul_tflops", "copy_gbs"].iter().all(|key| report["ceilings"][key].as_f64().unwrap() > 0.0), "{report}");
    stages(&["--device", "cpu"]).expect(2, &["--device cuda", "bench unet"]);
    stages(&["--device", "sim", "--batch", "0"]).expect(2, &["--batch 0"]);
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

#[test]
fn a_card_is_predicted() {
    let predict = |more: &[&str]| run(syntic().args(["bench", "--threads", "2", "--predict"]).args(more));
    let small = ["h100", "--model", "tiny", "--size", "64", "--batch", "1", "--steps", "2"];
    let ran = predict(&small).expect(0, &[]);
    for part in ["A prediction, not a measurement", "on h100, tiny, 1 images of 64x64", "images/s", "traffic / fused minimum"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let report: Value = serde_json::from_str(&predict(&[&small[..], &["--json"]].concat()).expect(0, &[]).stdout).unwrap();
    assert!(report["summary"]["images_per_s"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!((&report["chip"], report["passes"].as_array().unwrap().len()), (&Value::from("h100"), 3));
    predict(&["b200"]).expect(2, &["b200", "rtx4090"]);
    predict(&["h100", "--model", "tiny", "--size", "65"]).expect(2, &["--height 65"]);
    predict(&["h100", "--dtype", "f32"]).expect(2, &["--dtype f16"]);
}

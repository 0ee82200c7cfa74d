//! Operations of a whole warp: `shfl.sync`, `vote.sync`, `match.sync`, `redux.sync`, `activemask`, `elect.sync`.

use crate::harness::{id, table, warp, zero};

/// A value for each lane that tells it apart.
fn value(lane: u32) -> u32 {
    lane * 1000 + 7
}

/// Where lane `lane` reads from with width `width` (a power of two), or its own lane if that is out of its segment.
fn source(mode: &str, lane: u32, b: u32, width: u32) -> (u32, bool) {
    let first = lane / width * width;
    let (at, inside) = match mode {
        "up" => (lane.wrapping_sub(b), lane >= first + b),
        "down" => (lane + b, lane + b < first + width),
        "bfly" => (lane ^ b, (lane ^ b) < first + width),
        _ => (first + b % width, true),
    };
    if inside { (at, true) } else { (lane, false) }
}

/// As CUDA's __shfl_*_sync with a width does it: c holds the segment mask in bits 8 to 12 and the clamp in bits 0 to 4.
#[test]
fn shuffles_in_segments() {
    for width in [2u32, 4, 8, 16, 32] {
        for mode in ["up", "down", "bfly", "idx"] {
            let c = (32 - width) << 8 | if mode == "up" { 0 } else { 31 };
            for b in [0u32, 1, 2, 3, 5, 8, 16, 31] {
                if mode != "idx" && b >= width {
                    continue;
                }
                let body = format!(
                    "{{.reg .pred %q; .reg .b32 %x; shfl.sync.{mode}.b32 %x|%q, %a, {b}, {c}, -1; \
                     @!%q add.u32 %x, %x, 500000; mov.b32 %d, %x;}}"
                );
                let expected = |lane| match source(mode, lane, b, width) {
                    (from, true) => value(from),
                    (own, false) => value(own) + 500_000,
                };
                assert_eq!(warp(&body, value, zero, zero), (0..32).map(expected).collect::<Vec<_>>(), "{mode} {b} width {width}");
            }
        }
    }
}

/// Operands that differ by lane, an index past 31 and a clamp below the segment's end.
#[test]
fn shuffles_by_lane() {
    let got = warp("shfl.sync.idx.b32 %d, %a, %b, 31, -1;", value, |lane| lane * 11 + 32, zero);
    assert_eq!(got, (0..32).map(|lane| value(lane * 11 % 32)).collect::<Vec<_>>());
    let got = warp("shfl.sync.down.b32 %d, %a, 4, 20, -1;", value, zero, zero);
    assert_eq!(got, (0..32).map(|lane| value(if lane + 4 <= 20 { lane + 4 } else { lane })).collect::<Vec<_>>());
    let got = warp("shfl.sync.up.b32 %d, %a, 4, 10, -1;", value, zero, zero);
    assert_eq!(got, (0..32u32).map(|lane| value(if lane >= 14 { lane - 4 } else { lane })).collect::<Vec<_>>());
    let got = warp("shfl.sync.bfly.b32 %d, %a, %b, 0x1f, 0xffffffff;", value, |lane| lane % 3, zero);
    assert_eq!(got, (0..32).map(|lane| value(lane ^ (lane % 3))).collect::<Vec<_>>());
}

/// Two halves of a warp, each by itself.
#[test]
fn shuffles_among_some_lanes() {
    let body = "{.reg .pred %q; setp.lt.u32 %q, %a, 16; @%q bra LOW; shfl.sync.bfly.b32 %d, %b, 3, 31, 0xffff0000; \
    bra.uni JOIN;\n\
                LOW: shfl.sync.bfly.b32 %d, %b, 1, 31, 0x0000ffff;\nJOIN: add.u32 %d, %d, 1;}";
    let got = warp(body, id, value, zero);
    assert_eq!(got, (0..32).map(|lane| value(lane ^ if lane < 16 { 1 } else { 3 }) + 1).collect::<Vec<_>>());
}

#[test]
fn votes() {
    for (name, set) in [("none", 0u32), ("all", u32::MAX), ("some", 0x8001_0ff0), ("one", 1 << 19)] {
        let input = |lane: u32| set >> lane & 1;
        let vote = |what: &str| {
            let body =
                format!("{{.reg .pred %p, %q; setp.ne.u32 %p, %a, 0; vote.sync.{what}.pred %q, %p, -1; selp.b32 %d, 1, 0, %q;}}");
            warp(&body, input, zero, zero)
        };
        assert_eq!(vote("all"), [u32::from(set == u32::MAX); 32], "all of {name}");
        assert_eq!(vote("any"), [u32::from(set != 0); 32], "any of {name}");
        assert_eq!(vote("uni"), [u32::from(set == 0 || set == u32::MAX); 32], "uni of {name}");
        let ballot = "{.reg .pred %p; setp.ne.u32 %p, %a, 0; vote.sync.ballot.b32 %d, %p, -1;}";
        assert_eq!(warp(ballot, input, zero, zero), [set; 32], "ballot of {name}");
        let negated = "{.reg .pred %p; setp.ne.u32 %p, %a, 0; vote.sync.ballot.b32 %d, !%p, -1;}";
        assert_eq!(warp(negated, input, zero, zero), [!set; 32], "ballot of not {name}");
    }
}

/// Only the lanes of the mask count.
#[test]
fn votes_of_some_lanes() {
    let body = "{.reg .pred %q, %p; and.b32 %d, %a, 1; setp.eq.u32 %q, %d, 0; setp.gt.u32 %p, %a, 9; @%q bra EVEN;\n\
                vote.sync.ballot.b32 %d, %p, 0xaaaaaaaa; \
                bra.uni JOIN;\nEVEN: vote.sync.ballot.b32 %d, %p, 0x55555555;\nJOIN: xor.b32 %d, %d, 0;}";
    let (odd, even) = (0xaaaa_aaaa_u32 & !0x3ff, 0x5555_5555 & !0x3ff);
    assert_eq!(warp(body, id, zero, zero), (0..32).map(|lane| if lane % 2 == 1 { odd } else { even }).collect::<Vec<_>>());
}

#[test]
fn matches() {
    let key = |lane: u32| lane * lane % 7;
    let alike = |lane: u32| (0..32).filter(|&other| key(other) == key(lane)).fold(0u32, |mask, other| mask | 1 << other);
    assert_eq!(warp("match.any.sync.b32 %d, %a, -1;", key, zero, zero), (0..32).map(alike).collect::<Vec<_>>());
    let wide = "{.reg .b64 %x; mov.b64 %x, {%b, %a}; match.any.sync.b64 %d, %x, -1;}";
    assert_eq!(warp(wide, key, zero, zero), (0..32).map(alike).collect::<Vec<_>>());
    let all = "{.reg .pred %q; match.all.sync.b32 %d|%q, %a, -1; @!%q add.u32 %d, %d, 5;}";
    assert_eq!(warp(all, |_| 77, zero, zero), [u32::MAX; 32]);
    assert_eq!(warp(all, |lane| u32::from(lane == 30), zero, zero), [5; 32]);
}

#[test]
fn reductions() {
    let value = |lane: u32| lane.wrapping_mul(0x9e37_79b9) ^ 0x1234_5678;
    let values: Vec<u32> = (0..32).map(value).collect();
    let all = |body: &str| {
        let got = warp(body, value, zero, zero);
        assert!(got.iter().all(|&x| x == got[0]), "{body} {got:?}");
        got[0]
    };
    assert_eq!(all("redux.sync.add.u32 %d, %a, -1;"), values.iter().fold(0, |sum: u32, &x| sum.wrapping_add(x)));
    assert_eq!(all("redux.sync.add.s32 %d, %a, -1;"), values.iter().fold(0, |sum: u32, &x| sum.wrapping_add(x)));
    assert_eq!(all("redux.sync.min.u32 %d, %a, -1;"), *values.iter().min().unwrap());
    assert_eq!(all("redux.sync.max.u32 %d, %a, -1;"), *values.iter().max().unwrap());
    assert_eq!(all("redux.sync.min.s32 %d, %a, -1;"), values.iter().map(|&x| x as i32).min().unwrap() as u32);
    assert_eq!(all("redux.sync.max.s32 %d, %a, -1;"), values.iter().map(|&x| x as i32).max().unwrap() as u32);
    assert_eq!(all("redux.sync.and.b32 %d, %a, -1;"), values.iter().fold(u32::MAX, |all, &x| all & x));
    assert_eq!(all("redux.sync.or.b32 %d, %a, -1;"), values.iter().fold(0, |all, &x| all | x));
    assert_eq!(all("redux.sync.xor.b32 %d, %a, -1;"), values.iter().fold(0, |all, &x| all ^ x));
    let body = "{.reg .pred %q; mov.u32 %d, 0; setp.lt.u32 %q, %b, 8; @%q redux.sync.add.u32 %d, %a, 0xff;}";
    let some = values[..8].iter().fold(0, |sum: u32, &x| sum.wrapping_add(x));
    assert_eq!(warp(body, value, id, zero), (0..32).map(|lane| if lane < 8 { some } else { 0 }).collect::<Vec<_>>());
}

#[test]
fn lanes_that_are_active() {
    assert_eq!(warp("activemask.b32 %d;", zero, zero, zero), [u32::MAX; 32]);
    let body = "{.reg .pred %q; mov.u32 %d, 0; setp.lt.u32 %q, %a, 5; @%q activemask.b32 %d;}";
    let got = warp(body, id, zero, zero);
    // Lanes may come to it together or apart: each is there itself, and no lane that is not.
    assert!((0..5).all(|lane| got[lane] >> lane & 1 == 1 && got[lane] & !0x1f == 0) && got[5..] == [0; 27], "{got:?}");
    let leader = "{.reg .pred %q; .reg .b32 %x; elect.sync %x|%q, -1; selp.b32 %d, 1, 0, %q;}";
    assert_eq!(warp(leader, zero, zero, zero).iter().sum::<u32>(), 1);
}

/// bar.warp.sync orders what lanes write for each other.
#[test]
fn lanes_meet() {
    let body = "{.reg .u64 %at, %base;\n.shared .align 4 .b32 room[32];\nmov.u64 %base, room; mad.lo.u64 %at, %t64, 4, %base; \
    st.shared.u32 [%at], %a;\n\
                bar.warp.sync 0xffffffff;\nxor.b64 %at, %t64, 9; mad.lo.u64 %at, %at, 4, %base; ld.shared.u32 %d, [%at];}";
    let rows: Vec<[u64; 3]> = (0..32).map(|lane| [value(lane).into(), 0, 0]).collect();
    assert_eq!(table("", body, ["b32"; 4], &rows), (0..32).map(|lane| value(lane ^ 9).into()).collect::<Vec<u64>>());
}

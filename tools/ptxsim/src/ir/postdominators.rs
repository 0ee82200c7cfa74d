//! Where divided warps rejoin: immediate post-dominators of branches (Cooper, Harvey & Kennedy, "A simple, fast dominance
//! algorithm", 2001, on the reversed graph).

use super::{Inst, Op};

/// For each instruction, where the ways from it meet again; `usize::MAX` if only at the exit, and for instructions that do not branch.
pub(super) fn rejoins(insts: &[Inst]) -> Vec<usize> {
    let blocks = Blocks::of(insts);
    let immediate = blocks.immediate_postdominators();
    let exit = blocks.starts.len();
    let rejoin = |index: usize| match &insts[index].op {
        Op::Branch { .. } | Op::BranchTable { .. } => match immediate[blocks.of_inst[index]] {
            // Lanes that have only to exit do so at once: a barrier does not wait for exited threads.
            Some(block) if block != exit && !is_exit(&insts[blocks.starts[block]]) => blocks.starts[block],
            _ => usize::MAX,
        },
        _ => usize::MAX,
    };
    (0..insts.len()).map(rejoin).collect()
}

fn is_exit(inst: &Inst) -> bool {
    inst.guard.is_none() && matches!(inst.op, Op::Exit)
}

/// Basic blocks and their successors; the exit is block `starts.len()`.
struct Blocks {
    starts: Vec<usize>,
    of_inst: Vec<usize>,
    successors: Vec<Vec<usize>>,
}

impl Blocks {
    fn of(insts: &[Inst]) -> Blocks {
        let count = insts.len();
        let mut leader = vec![false; count + 1];
        leader[0] = true;
        for (index, inst) in insts.iter().enumerate() {
            match &inst.op {
                Op::Branch { target, .. } => leader[*target] = true,
                Op::BranchTable { targets, .. } => targets.iter().for_each(|&target| leader[target] = true),
                Op::Exit => {}
                _ => continue,
            }
            leader[index + 1] = true;
        }
        let starts: Vec<usize> = (0..count).filter(|&i| leader[i]).collect();
        let mut of_inst = vec![0; count];
        let mut block = 0;
        for (index, of) in of_inst.iter_mut().enumerate() {
            block += usize::from(index > 0 && leader[index]);
            *of = block;
        }
        let exit = starts.len();
        let block_at = |index: usize| if index < count { of_inst[index] } else { exit };
        let successors = (0..exit).map(|block| {
            let last = starts.get(block + 1).map_or(count, |&next| next) - 1;
            let inst = &insts[last];
            let mut out = match &inst.op {
                Op::Branch { target, .. } => vec![block_at(*target)],
                Op::BranchTable { targets, .. } => targets.iter().map(|&target| block_at(target)).collect(),
                Op::Exit => vec![exit],
                _ => vec![block_at(last + 1)],
            };
            if inst.guard.is_some() && matches!(inst.op, Op::Branch { .. } | Op::BranchTable { .. } | Op::Exit) {
                out.push(block_at(last + 1));
            }
            out
        });
        let successors = successors.collect();
        Blocks { starts, of_inst, successors }
    }

    /// `None` for blocks from which there is no way out.
    fn immediate_postdominators(&self) -> Vec<Option<usize>> {
        let exit = self.starts.len();
        let mut predecessors = vec![Vec::new(); exit + 1];
        for (block, successors) in self.successors.iter().enumerate() {
            successors.iter().for_each(|&to| predecessors[to].push(block));
        }
        // Post-order of the reversed graph, without recursion.
        let (mut order, mut number) = (Vec::new(), vec![usize::MAX; exit + 1]);
        let (mut seen, mut stack) = (vec![false; exit + 1], vec![(exit, 0)]);
        seen[exit] = true;
        while let Some((block, next)) = stack.last_mut() {
            match predecessors[*block].get(*next) {
                Some(&from) => {
                    *next += 1;
                    if !std::mem::replace(&mut seen[from], true) {
                        stack.push((from, 0));
                    }
                }
                None => {
                    number[*block] = order.len();
                    order.push(*block);
                    stack.pop();
                }
            }
        }
        let mut immediate: Vec<Option<usize>> = vec![None; exit + 1];
        immediate[exit] = Some(exit);
        let mut changed = true;
        while changed {
            changed = false;
            for &block in order.iter().rev().filter(|&&block| block != exit) {
                let mut found: Option<usize> = None;
                for &to in self.successors[block].iter().filter(|&&to| immediate[to].is_some()) {
                    found = Some(found.map_or(to, |other| meet(other, to, &immediate, &number)));
                }
                if found != immediate[block] {
                    immediate[block] = found;
                    changed = true;
                }
            }
        }
        immediate
    }
}

/// The nearest common post-dominator.
fn meet(mut a: usize, mut b: usize, immediate: &[Option<usize>], number: &[usize]) -> usize {
    while a != b {
        while number[a] < number[b] {
            a = immediate[a].unwrap_or(b);
        }
        while number[b] < number[a] {
            b = immediate[b].unwrap_or(a);
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Guard;

    fn go(target: usize, guarded: bool) -> Inst {
        let guard = guarded.then_some(Guard { pred: 0, negated: false });
        Inst { guard, op: Op::Branch { target, rejoin: 0 } }
    }

    fn nothing() -> Inst {
        Inst { guard: None, op: Op::Nothing }
    }

    fn exit(guarded: bool) -> Inst {
        Inst { guard: guarded.then_some(Guard { pred: 0, negated: false }), op: Op::Exit }
    }

    #[test]
    fn diamonds_loops_and_early_exits() {
        let diamond = [go(3, true), nothing(), go(4, false), nothing(), nothing(), exit(false)];
        assert_eq!(rejoins(&diamond)[0], 4);
        let to_exit = [go(3, true), nothing(), go(3, false), exit(false)];
        assert_eq!(rejoins(&to_exit)[0], usize::MAX);
        let around = [nothing(), nothing(), go(0, true), nothing(), exit(false)];
        assert_eq!(rejoins(&around)[2], 3);
        let early = [go(3, true), exit(false), nothing(), exit(false)];
        assert_eq!(rejoins(&early)[0], usize::MAX);
        let forever = [go(2, true), go(1, false), nothing(), exit(false)];
        assert_eq!(rejoins(&forever)[0], 2, "the only way out");
        let guarded = [go(2, true), exit(true), exit(false)];
        assert_eq!(rejoins(&guarded)[0], usize::MAX);
        assert_eq!(rejoins(&[go(1, true)]), [usize::MAX]);
        assert!(rejoins(&[]).is_empty());
    }
}

//! A breadth-first search of every state that a model can reach.
//!
//! Guarantees: a search that ends without a counterexample has seen every reachable state, each checked once,
//! and from each of them the goal can be reached by steps that are not faults. A counterexample of an
//! invariant is a shortest one; that of [`Property::Progress`] leads to a nearest state that cannot go on.
//!
//! Not guaranteed: that the goal is reached whatever happens. That needs a fair scheduler, which the model
//! leaves out.
//!
//! It is our own because "can always go on" needs the whole graph: stateright checks invariants, but its
//! `eventually` skips cycles, and each restart is one.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

use crate::Property;

/// What can be searched.
pub(crate) trait Model {
    type State: Copy + Eq + Hash + Debug;
    type Step: Copy + Debug;

    fn start(&self) -> Self::State;
    /// Adds each step that is possible now, with the state that it leads to.
    fn steps(&self, state: &Self::State, next: &mut Vec<(Self::Step, Self::State)>);
    /// Whether a step is bad luck or another's doing: progress may not depend on it.
    fn is_fault(&self, step: Self::Step) -> bool;
    /// The invariants that a state breaks.
    fn broken(&self, state: &Self::State) -> Vec<Property>;
    /// Whether all is done.
    fn done(&self, state: &Self::State) -> bool;
}

/// How a state is reached: each step, with the state after it.
pub(crate) type Path<M> = Vec<(<M as Model>::Step, <M as Model>::State)>;

/// What a search found.
pub(crate) struct Found<M: Model> {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) counterexample: Option<(Property, Path<M>)>,
}

/// Searches until a property is broken: `only` this one, or any.
pub(crate) fn search<M: Model>(model: &M, only: Option<Property>) -> Found<M> {
    let start = model.start();
    let mut known = HashMap::with_hasher(foldhash::fast::RandomState::default());
    known.insert(start, 0_u32);
    // Of each state, by its number: the state that it was first reached from, and whether it is the goal.
    let (mut parents, mut can_finish) = (vec![0], vec![model.done(&start)]);
    let (mut healthy, mut transitions) = (Vec::new(), 0);
    let mut queue = VecDeque::from([(0, start)]);
    let mut next = Vec::new();
    let wanted = |property: &Property| only.is_none_or(|only| only == *property);
    while let Some((number, state)) = queue.pop_front() {
        if let Some(property) = model.broken(&state).into_iter().find(wanted) {
            let path = path(model, &known, &parents, number);
            return Found { states: known.len(), transitions, counterexample: Some((property, path)) };
        }
        model.steps(&state, &mut next);
        for (step, reached) in next.drain(..) {
            transitions += 1;
            let fresh = u32::try_from(parents.len()).expect("the bounds keep the model smaller");
            let to = *known.entry(reached).or_insert(fresh);
            if to == fresh {
                parents.push(number);
                can_finish.push(model.done(&reached));
                queue.push_back((to, reached));
            }
            if !model.is_fault(step) {
                healthy.push((number, to));
            }
        }
    }
    spread_backwards(&healthy, &mut can_finish);
    let stuck = can_finish.iter().position(|can| !can).filter(|_| wanted(&Property::Progress));
    let counterexample = stuck.map(|number| {
        let number = u32::try_from(number).expect("it was one");
        (Property::Progress, path(model, &known, &parents, number))
    });
    Found { states: known.len(), transitions, counterexample }
}

/// Marks each state from which an edge leads to one that is marked, until no more are.
fn spread_backwards(edges: &[(u32, u32)], marked: &mut [bool]) {
    let mut grew = true;
    while grew {
        grew = false;
        // Later states are nearer to the goal, as a rule: from the back, few rounds do.
        for &(from, to) in edges.iter().rev() {
            if marked[to as usize] && !marked[from as usize] {
                marked[from as usize] = true;
                grew = true;
            }
        }
    }
}

/// The steps from the start to a state.
fn path<M: Model, S: std::hash::BuildHasher>(
    model: &M,
    known: &HashMap<M::State, u32, S>,
    parents: &[u32],
    to: u32,
) -> Path<M> {
    let mut numbers = vec![to];
    while let Some(&last) = numbers.last().filter(|&&last| last != 0) {
        numbers.push(parents[last as usize]);
    }
    let (mut state, mut next, mut path) = (model.start(), Vec::new(), Vec::new());
    for number in numbers.into_iter().rev().skip(1) {
        model.steps(&state, &mut next);
        let taken = next.drain(..).find(|(_, reached)| known.get(reached) == Some(&number));
        let taken = taken.expect("a step leads from a state to those it reached");
        state = taken.1;
        path.push(taken);
    }
    path
}

//! The paths of a mask as one tree, so that a payload is walked once however many there are.

use super::MaskError;
use super::path::{Path, Segment, Shape};

/// What happens to a value that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    Show,
    Drop,
    /// By this JSON text.
    Replace(Box<str>),
    Pseudonym,
    Map(Mapping),
}

/// An internal id becomes an external one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) kind: std::sync::Arc<str>,
    pub(super) missing: Missing,
}

/// What happens where there is no external id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Hold,
    Pseudonym,
    Refuse,
}

/// One path as a mask has it, and what it says: `Show` if and only if it is in `allow`.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) text: Box<str>,
    pub(super) path: Path,
    pub(super) treatment: Treatment,
}

/// One path and what it says.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// As it was written.
    pub(super) path: Box<str>,
    pub(super) treatment: Treatment,
    shape: Shape,
}

impl Rule {
    pub(super) fn shows(&self) -> bool {
        self.treatment == Treatment::Show
    }

    /// Whether it names everything below a place, rather than the place.
    pub(super) fn is_deep(&self) -> bool {
        self.shape.is_deep()
    }
}

/// Its place in [`Tree::rules`], where what is literal earlier comes first.
pub(super) type RuleId = u32;
pub(super) type NodeId = u32;

/// All paths of one list, compiled. What nothing names is treated as `rest` says.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    rules: Vec<Rule>,
    pub(super) rest: Treatment,
}

/// A place that paths lead to or past.
#[derive(Clone, Debug, Default)]
struct Node {
    literal: Vec<(Box<str>, NodeId)>,
    any: Option<NodeId>,
    exact: Named,
    deep: Named,
    leads: Leads,
}

/// By which rules a node is named, of either list.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    field: Option<RuleId>,
    allow: Option<RuleId>,
}

impl Named {
    /// Of the same path `fields` counts.
    fn first(self) -> Option<RuleId> {
        self.field.or(self.allow)
    }
}

/// Whether anything below a node is there to be seen, in an object and in an array.
#[derive(Clone, Copy, Debug, Default)]
struct Leads {
    object: bool,
    array: bool,
}

/// Where a walk through a document stands: which nodes its path leads to, and which rules name everything below where it is.
#[derive(Debug, Default)]
pub(super) struct Trail {
    nodes: Vec<NodeId>,
    deep: Vec<RuleId>,
    /// What the deep rules alone come to.
    default: Option<RuleId>,
}

/// What to go back to.
#[derive(Clone, Copy)]
pub(super) struct Below {
    deep: usize,
    default: Option<RuleId>,
}

impl Tree {
    /// From what `fields` says, and from what `allow` lists. No path is twice in the same of them.
    pub(super) fn build(
        fields: &[Written],
        allow: &[Written],
        rest: Treatment,
    ) -> Result<Self, MaskError> {
        let implied = allow.iter().filter_map(implied);
        let mut all: Vec<Written> = fields.iter().cloned().chain(implied).collect();
        all.extend(allow.iter().cloned());
        all.sort_by_cached_key(|written| written.path.rank());
        let mut tree = Self {
            nodes: vec![Node::default()],
            rules: Vec::with_capacity(all.len()),
            rest,
        };
        for written in all {
            tree.add(written);
        }
        tree.see_what_leads();
        for written in fields.iter().chain(allow) {
            tree.check_reach(written)?;
        }
        Ok(tree)
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn add(&mut self, written: Written) {
        let mut at = 0;
        for segment in &written.path.segments {
            at = self.child(at, segment);
        }
        let id = as_id(self.rules.len());
        let node = &mut self.nodes[at as usize];
        let named = if written.path.deep {
            &mut node.deep
        } else {
            &mut node.exact
        };
        if written.treatment == Treatment::Show {
            // `/a` and `/a/**` may both be allowed; they say the same of what lies below.
            named.allow = Some(id);
        } else {
            named.field = Some(id);
        }
        self.rules.push(Rule {
            shape: written.path.shape(),
            path: written.text,
            treatment: written.treatment,
        });
    }

    fn child(&mut self, at: NodeId, segment: &Segment) -> NodeId {
        let next = as_id(self.nodes.len());
        let node = &mut self.nodes[at as usize];
        let found = match segment {
            Segment::Any => *node.any.get_or_insert(next),
            Segment::Literal(name) => {
                let mut named = node.literal.iter().filter(|(other, _)| other == name);
                let found = named.next().map(|(_, child)| *child);
                found.unwrap_or_else(|| {
                    node.literal.push((name.clone(), next));
                    next
                })
            }
        };
        if found == next {
            self.nodes.push(Node::default());
        }
        found
    }

    /// Sorts names for the search, and notes for each node whether something below it is to be seen.
    fn see_what_leads(&mut self) {
        for node in &mut self.nodes {
            node.literal.sort();
        }
        let leads = |at: &Node| {
            let leads = |in_array| self.below(at, in_array).any(|id| self.is_seen(id));
            Leads {
                object: leads(false),
                array: leads(true),
            }
        };
        let all: Vec<Leads> = self.nodes.iter().map(leads).collect();
        for (node, leads) in self.nodes.iter_mut().zip(all) {
            node.leads = leads;
        }
    }

    /// The rules that count below a node, if no others fit: of its own those that are deep, all of the nodes below, where an element
    /// of an array can have the first one's name.
    fn below<'t>(
        &'t self,
        node: &'t Node,
        in_array: bool,
    ) -> Box<dyn Iterator<Item = RuleId> + 't> {
        let named = node
            .literal
            .iter()
            .filter(move |(name, _)| !in_array || is_index(name));
        let children = named.map(|(_, child)| *child).chain(node.any);
        let of_children = children.flat_map(|child| {
            let child = &self.nodes[child as usize];
            // What a path hides leads nowhere, and none goes on below it but those that an allowed one implies.
            let hidden = child.exact.field.is_some();
            let below = (!hidden).then(|| self.below(child, false));
            let below = below.into_iter().flatten();
            child.exact.first().into_iter().chain(below)
        });
        Box::new(node.deep.first().into_iter().chain(of_children))
    }

    fn is_seen(&self, id: RuleId) -> bool {
        self.rules[id as usize].treatment != Treatment::Drop
    }

    /// Refuses a path that can never count, because another one hides all of a value that it leads through.
    fn check_reach(&self, written: &Written) -> Result<(), MaskError> {
        let Written { text, path, .. } = written;
        let mut trail = Trail::default();
        let mut level = trail.start();
        for index in 0..path.segments.len() + usize::from(path.deep) {
            let hidden_by = self
                .fit(&trail, level)
                .filter(|rule| !rule.shows() && !rule.is_deep());
            if let Some(rule) = hidden_by {
                return Err(MaskError::new(format!(
                    "`{text}` can never count, because `{}` hides all that is there; take one of them out",
                    rule.path
                )));
            }
            self.go_below(&mut trail, level);
            let name = match path.segments.get(index) {
                Some(Segment::Literal(name)) => Some(name.as_bytes()),
                _ => None,
            };
            level = self.step(&mut trail, level, name);
        }
        Ok(())
    }

    /// The rule for the value whose nodes are those from `level` on: the first of `fields` that fits, unless an allowed path is
    /// narrower than each of them.
    pub(super) fn fit(&self, trail: &Trail, level: usize) -> Option<&Rule> {
        let named = |id: &NodeId| {
            let exact = self.nodes[*id as usize].exact;
            exact.field.is_some() || exact.allow.is_some()
        };
        let id = if trail.nodes[level..].iter().any(named) {
            self.choose(&trail.nodes[level..], &trail.deep)
        } else {
            trail.default
        };
        id.and_then(|id| self.rules.get(id as usize))
    }

    fn choose(&self, nodes: &[NodeId], deep: &[RuleId]) -> Option<RuleId> {
        let exact = |pick: fn(Named) -> Option<RuleId>| {
            nodes
                .iter()
                .filter_map(move |id| pick(self.nodes[*id as usize].exact))
        };
        let shows = |id: &RuleId| self.rules[*id as usize].shows();
        let fields =
            || exact(|named| named.field).chain(deep.iter().copied().filter(|id| !shows(id)));
        let mut allowed = exact(|named| named.allow).chain(deep.iter().copied().filter(shows));
        let shape = |id: RuleId| self.rules[id as usize].shape;
        allowed
            .find(|allow| fields().all(|field| shape(*allow).is_narrower_than(shape(field))))
            .or_else(|| fields().min())
    }

    /// Whether a path goes on from here, so that what lies below must be looked at.
    pub(super) fn goes_on(&self, trail: &Trail, level: usize) -> bool {
        trail.nodes[level..].iter().any(|id| {
            let node = &self.nodes[*id as usize];
            !node.literal.is_empty() || node.any.is_some() || node.deep.field.is_some()
        })
    }

    /// Whether something below an object (or an array) that stands here is to be seen.
    pub(super) fn leads(&self, trail: &Trail, level: usize, in_array: bool) -> bool {
        trail.nodes[level..].iter().any(|id| {
            let leads = self.nodes[*id as usize].leads;
            if in_array { leads.array } else { leads.object }
        })
    }

    /// The same where all below is hidden by a `**`: whether a path that leads to something to be seen counts in spite of it.
    pub(super) fn leads_out(&self, trail: &Trail, level: usize, in_array: bool) -> bool {
        let hiding = || {
            let rules = trail.deep.iter().map(|id| (*id, &self.rules[*id as usize]));
            rules.filter(|(_, rule)| !rule.shows())
        };
        let counts = |id: RuleId| {
            let rule = &self.rules[id as usize];
            hiding().all(|(other_id, other)| {
                let narrower = rule.shape.is_narrower_than(other.shape);
                if rule.shows() {
                    narrower
                } else {
                    id < other_id
                }
            })
        };
        trail.nodes[level..].iter().any(|node| {
            let mut below = self.below(&self.nodes[*node as usize], in_array);
            below.any(|id| self.is_seen(id) && counts(id))
        })
    }

    /// Enters the container whose nodes are those from `level` on. [`Trail::leave`] it again.
    pub(super) fn go_below(&self, trail: &mut Trail, level: usize) -> Below {
        let below = Below {
            deep: trail.deep.len(),
            default: trail.default,
        };
        for id in &trail.nodes[level..] {
            let named = self.nodes[*id as usize].deep;
            trail.deep.extend(named.field);
            trail.deep.extend(named.allow);
        }
        if trail.deep.len() > below.deep {
            trail.default = self.choose(&[], &trail.deep);
        }
        below
    }

    /// Goes from a container to its member of this name, or to its element of this index; `None` is a name that no path spells
    /// out. Gives the level of what is there. [`Trail::back`] from there.
    pub(super) fn step(&self, trail: &mut Trail, level: usize, name: Option<&[u8]>) -> usize {
        let next = trail.nodes.len();
        for index in level..next {
            let node = &self.nodes[trail.nodes[index] as usize];
            if let Some(name) = name
                && let Ok(found) = node
                    .literal
                    .binary_search_by(|(other, _)| other.as_bytes().cmp(name))
            {
                trail.nodes.push(node.literal[found].1);
            }
            trail.nodes.extend(node.any);
        }
        next
    }
}

impl Trail {
    /// At the root. Gives its level.
    pub(super) fn start(&mut self) -> usize {
        self.nodes.clear();
        self.deep.clear();
        self.default = None;
        self.nodes.push(0);
        0
    }

    /// Back to the container of what stands at this level.
    pub(super) fn back(&mut self, level: usize) {
        self.nodes.truncate(level);
    }

    pub(super) fn leave(&mut self, below: Below) {
        self.deep.truncate(below.deep);
        self.default = below.default;
    }
}

/// What lies below an allowed place is allowed as if `**` had said so.
fn implied(allowed: &Written) -> Option<Written> {
    let mut below = allowed.clone();
    below.path.deep = true;
    (!allowed.path.deep).then_some(below)
}

/// Whether a name can be the index of an element: a number without leading zeros.
fn is_index(name: &str) -> bool {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    digits && !name.is_empty() && (name == "0" || !name.starts_with('0'))
}

/// A mask holds far fewer than this many of anything.
fn as_id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

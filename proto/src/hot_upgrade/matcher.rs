//! Which versions an entry of an appup is for: one, or those of which all is matched by a regular expression.
//!
//! Expressions are those that appups have: letters, classes, groups, `.`, `*`, `+`, `?`, `|` and anchors. One that uses more,
//! or takes too long, may match: the VM itself decides in the end.

use serde::{Deserialize, Serialize};

/// One entry of an appup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    #[serde(flatten)]
    pub versions: Versions,
    /// Its script starts a new VM: nothing that runs outlives that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restarts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Versions {
    Exact(String),
    Expression(String),
}

impl Matcher {
    pub fn takes(&self, version: &str) -> bool {
        match &self.versions {
            Versions::Exact(exact) => exact == version,
            Versions::Expression(expression) => matches_all(expression, version),
        }
    }
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.versions {
            Versions::Exact(text) | Versions::Expression(text) => f.write_str(text),
        }
    }
}

const MAX_STEPS: u32 = 20_000;
const MAX_DEPTH: u32 = 200;

fn matches_all(expression: &str, text: &str) -> bool {
    let pattern: Vec<char> = expression.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let mut parser = Parser { pattern: &pattern, at: 0, depth: 0 };
    let Some(tree) = parser.alternatives().filter(|_| parser.at == pattern.len()) else { return true };
    let mut run = Run { text: &text, steps: 0, gave_up: false };
    let end = text.len();
    let matched = run.any(&tree, 0, 0, &mut |_, at| at == end);
    matched || run.gave_up
}

enum Node {
    /// Ranges, and whether it takes what is in none of them.
    Class(Vec<(char, char)>, bool),
    Group(Vec<Vec<Node>>),
    Repeat(Box<Node>, usize, usize),
    Start,
    End,
}

struct Parser<'a> {
    pattern: &'a [char],
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.pattern.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    /// `None`: it uses what is not known here.
    fn alternatives(&mut self) -> Option<Vec<Vec<Node>>> {
        self.depth += 1;
        if self.depth > 16 {
            return None;
        }
        let mut all = vec![Vec::new()];
        loop {
            let node = match self.peek() {
                None | Some(')') => break,
                Some('|') => {
                    self.at += 1;
                    all.push(Vec::new());
                    continue;
                }
                Some(_) => self.atom()?,
            };
            let node = self.repeated(node)?;
            all.last_mut()?.push(node);
        }
        self.depth -= 1;
        Some(all)
    }

    fn atom(&mut self) -> Option<Node> {
        let one = |it: char| Node::Class(vec![(it, it)], false);
        Some(match self.next()? {
            '.' => Node::Class(Vec::new(), true),
            '^' => Node::Start,
            '$' => Node::End,
            '[' => self.class()?,
            '(' => {
                if self.peek() == Some('?') {
                    self.at += 1;
                    if self.next() != Some(':') {
                        return None;
                    }
                }
                let group = Node::Group(self.alternatives()?);
                if self.next() != Some(')') {
                    return None;
                }
                group
            }
            '\\' => match self.next()? {
                'd' => Node::Class(vec![('0', '9')], false),
                it if it.is_alphanumeric() => return None,
                it => one(it),
            },
            '*' | '+' | '?' | '{' => return None,
            it => one(it),
        })
    }

    fn class(&mut self) -> Option<Node> {
        let is_other = self.peek() == Some('^');
        if is_other {
            self.at += 1;
        }
        let mut ranges = Vec::new();
        loop {
            let first = match self.next()? {
                ']' if !ranges.is_empty() => return Some(Node::Class(ranges, is_other)),
                ']' | '[' => return None,
                '\\' => match self.next()? {
                    'd' => {
                        ranges.push(('0', '9'));
                        continue;
                    }
                    it if it.is_alphanumeric() => return None,
                    it => it,
                },
                it => it,
            };
            let is_range =
                self.peek() == Some('-') && self.pattern.get(self.at + 1).is_some_and(|it| *it != ']');
            if is_range {
                self.at += 1;
                ranges.push((first, self.next()?));
            } else {
                ranges.push((first, first));
            }
        }
    }

    fn repeated(&mut self, node: Node) -> Option<Node> {
        let (least, most) = match self.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some('{') => return None,
            _ => return Some(node),
        };
        self.at += 1;
        // Lazy and possessive ones: the first find the same here, the second are rare.
        if self.peek() == Some('?') {
            self.at += 1;
        }
        match self.peek() {
            Some('*' | '+') => None,
            _ => Some(Node::Repeat(Box::new(node), least, most)),
        }
    }
}

/// What is to be matched behind.
type Then<'a> = &'a mut dyn FnMut(&mut Run<'_>, usize) -> bool;

struct Run<'t> {
    text: &'t [char],
    steps: u32,
    gave_up: bool,
}

impl Run<'_> {
    fn any(&mut self, group: &[Vec<Node>], at: usize, depth: u32, then: Then<'_>) -> bool {
        group.iter().any(|nodes| self.all(nodes, at, depth, then))
    }

    fn all(&mut self, nodes: &[Node], at: usize, depth: u32, then: Then<'_>) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS || depth > MAX_DEPTH {
            self.gave_up = true;
        }
        if self.gave_up {
            return false;
        }
        match nodes {
            [] => then(self, at),
            [node, rest @ ..] => {
                self.one(node, at, depth + 1, &mut |run, at| run.all(rest, at, depth + 1, then))
            }
        }
    }

    fn one(&mut self, node: &Node, at: usize, depth: u32, then: Then<'_>) -> bool {
        match node {
            Node::Start => at == 0 && then(self, at),
            Node::End => at == self.text.len() && then(self, at),
            Node::Class(ranges, is_other) => {
                let Some(next) = self.text.get(at) else { return false };
                let is_in = ranges.iter().any(|(first, last)| (first..=last).contains(&next));
                is_in != *is_other && then(self, at + 1)
            }
            Node::Group(group) => self.any(group, at, depth, then),
            Node::Repeat(node, least, most) => self.repeat(node, (*least, *most), at, depth, then),
        }
    }

    fn repeat(
        &mut self,
        node: &Node,
        (least, most): (usize, usize),
        at: usize,
        depth: u32,
        then: Then<'_>,
    ) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS || depth > MAX_DEPTH {
            self.gave_up = true;
            return false;
        }
        if least == 0 && then(self, at) {
            return true;
        }
        let left = (least.saturating_sub(1), most.saturating_sub(usize::from(most != usize::MAX)));
        most > 0
            && self.one(node, at, depth + 1, &mut |run, next| {
                // What took nothing would take nothing for ever.
                next > at && run.repeat(node, left, next, depth + 1, then)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_as_otp_writes_them_take_whole_versions() {
        for (expression, version, takes) in [
            (r"^8\.5$", "8.5", true),
            (r"^8\.5$", "8.5.1", false),
            (r"^8\.5\.2(?:\.[0-9]+)*$", "8.5.2", true),
            (r"^8\.5\.2(?:\.[0-9]+)*$", "8.5.2.7.1", true),
            (r"^8\.5\.2(?:\.[0-9]+)*$", "8.5.20", false),
            (r"^4\.0\.0(?:\.[0-9]+)+$", "4.0.0", false),
            (r"^4\.0\.0(?:\.[0-9]+)+$", "4.0.0.1", true),
            (r"10\..*", "10.8.7", true),
            (r"10\..*", "110.8.7", false),
            (r"0\.1", "0.1.0", false),
            (".*", "anything", true),
            (r"0\.(1|2)\.\d+(-rc[a-z.]?)?", "0.2.13-rc.", true),
            (r"0\.(1|2)\.\d+", "0.3.1", false),
            (r"[^1].*", "1.0", false),
            (r"[^1].*", "2.0", true),
        ] {
            assert_eq!(matches_all(expression, version), takes, "{expression} {version}");
        }
    }

    #[test]
    fn what_is_not_known_here_or_takes_too_long_may_match() {
        for expression in
            [r"1\.\w+", "1{2}", "(?i)a", "(", "[", "*", "a**", "[[:digit:]]", &"(".repeat(5_000)]
        {
            assert!(matches_all(expression, "x"), "{expression}");
        }
        let text = format!("{}b", "a".repeat(100));
        assert!(matches_all("(a*a*a*a*)*c", &text), "it is given up");
    }
}

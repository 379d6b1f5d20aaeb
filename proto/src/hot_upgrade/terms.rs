//! Erlang terms as text, as far as `.rel` and `.appup` files need them: what `file:consult` reads, without funs, pids and
//! improper lists.
//!
//! Hostile input is expected: depth, number and size are capped, and every fault says on which line it is.

/// One term. Numbers stay text: nobody counts with them here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Atom(String),
    /// `"…"`, a list of characters in Erlang.
    Text(String),
    Binary(String),
    Number(String),
    List(Vec<Term>),
    Tuple(Vec<Term>),
    Map(Vec<(Term, Term)>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct TermFault {
    line: usize,
    what: &'static str,
}

const MAX_DEPTH: usize = 64;
const MAX_TERMS: usize = 100_000;

/// All terms of a file, each with its full stop.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Term>, TermFault> {
    // What is no UTF-8 is Latin-1, as it was in Erlang before.
    let chars: Vec<char> = match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().collect(),
        Err(_) => bytes.iter().map(|it| char::from(*it)).collect(),
    };
    let mut reader = Reader { chars: &chars, at: 0, terms: 0 };
    let mut terms = Vec::new();
    loop {
        reader.space();
        if reader.peek().is_none() {
            return Ok(terms);
        }
        terms.push(reader.term(0)?);
        reader.space();
        if reader.next() != Some('.') {
            return Err(reader.fault("a full stop was expected behind the term"));
        }
    }
}

struct Reader<'a> {
    chars: &'a [char],
    at: usize,
    terms: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let rest = &self.chars[self.at..];
        let is_there = wanted.chars().enumerate().all(|(nth, it)| rest.get(nth) == Some(&it));
        if is_there {
            self.at += wanted.chars().count();
        }
        is_there
    }

    /// White space and comments.
    fn space(&mut self) {
        while let Some(next) = self.peek() {
            match next {
                '%' => {
                    while self.peek().is_some_and(|it| it != '\n') {
                        self.at += 1;
                    }
                }
                // A byte order mark is space too.
                it if it.is_whitespace() || it.is_control() || it == '\u{feff}' => self.at += 1,
                _ => return,
            }
        }
    }

    fn fault(&self, what: &'static str) -> TermFault {
        let before = &self.chars[..self.at.min(self.chars.len())];
        TermFault { line: before.iter().filter(|it| **it == '\n').count() + 1, what }
    }

    fn term(&mut self, depth: usize) -> Result<Term, TermFault> {
        self.terms += 1;
        if depth > MAX_DEPTH {
            return Err(self.fault("terms are nested too deeply"));
        }
        if self.terms > MAX_TERMS {
            return Err(self.fault("there are too many terms"));
        }
        match self.peek() {
            Some('[') => {
                self.at += 1;
                self.sequence(']', depth).map(Term::List)
            }
            Some('{') => {
                self.at += 1;
                self.sequence('}', depth).map(Term::Tuple)
            }
            Some('#') if self.takes("#{") => self.map(depth),
            Some('<') if self.takes("<<") => self.binary(),
            Some('"') => self.text().map(Term::Text),
            Some('\'') => {
                self.at += 1;
                self.quoted('\'').map(Term::Atom)
            }
            Some('$') => {
                self.at += 1;
                self.character().map(|it| Term::Number(u32::from(it).to_string()))
            }
            Some(first) if first.is_ascii_digit() || matches!(first, '-' | '+') => self.number(),
            Some(first) if first.is_lowercase() => Ok(Term::Atom(self.word())),
            Some(_) => Err(self.fault("no term begins like this")),
            None => Err(self.fault("the file ends in the middle of a term")),
        }
    }

    fn sequence(&mut self, end: char, depth: usize) -> Result<Vec<Term>, TermFault> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(items);
        }
        loop {
            self.space();
            items.push(self.term(depth + 1)?);
            self.space();
            match self.next() {
                Some(',') => {}
                Some(it) if it == end => return Ok(items),
                Some('|') => return Err(self.fault("improper lists are not read here")),
                Some(_) => return Err(self.fault("a comma or the end of the list or tuple was expected")),
                None => return Err(self.fault("the file ends in the middle of a list or tuple")),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Term, TermFault> {
        let mut entries = Vec::new();
        self.space();
        if self.takes("}") {
            return Ok(Term::Map(entries));
        }
        loop {
            self.space();
            let key = self.term(depth + 1)?;
            self.space();
            if !self.takes("=>") {
                return Err(self.fault("=> was expected in the map"));
            }
            self.space();
            entries.push((key, self.term(depth + 1)?));
            self.space();
            match self.next() {
                Some(',') => {}
                Some('}') => return Ok(Term::Map(entries)),
                _ => return Err(self.fault("a comma or the end of the map was expected")),
            }
        }
    }

    /// Segments of texts and bytes; what stands behind a segment's `/` changes none that such files have.
    fn binary(&mut self) -> Result<Term, TermFault> {
        let mut content = String::new();
        self.space();
        if self.takes(">>") {
            return Ok(Term::Binary(content));
        }
        loop {
            self.space();
            match self.peek() {
                Some('"') => content.push_str(&self.text()?),
                Some(it) if it.is_ascii_digit() => {
                    let Term::Number(number) = self.number()? else { return Err(self.fault("no byte")) };
                    let byte: u8 =
                        number.parse().map_err(|_| self.fault("a byte of a binary is a number up to 255"))?;
                    content.push(char::from(byte));
                }
                _ => return Err(self.fault("a text or a byte was expected in the binary")),
            }
            self.space();
            if self.takes("/") {
                self.word();
                self.space();
            }
            if self.takes(">>") {
                return Ok(Term::Binary(content));
            }
            if !self.takes(",") {
                return Err(self.fault("a comma or >> was expected in the binary"));
            }
        }
    }

    /// Texts that stand beside each other are one.
    fn text(&mut self) -> Result<String, TermFault> {
        let mut all = String::new();
        while self.peek() == Some('"') {
            self.at += 1;
            all.push_str(&self.quoted('"')?);
            self.space();
        }
        Ok(all)
    }

    fn quoted(&mut self, end: char) -> Result<String, TermFault> {
        let mut text = String::new();
        loop {
            match self.peek() {
                Some(it) if it == end => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(_) => text.push(self.character()?),
                None => return Err(self.fault("the file ends in the middle of a quoted text")),
            }
        }
    }

    fn character(&mut self) -> Result<char, TermFault> {
        let cut_off = "the file ends in the middle of a quoted text";
        match self.next() {
            Some('\\') => {}
            Some(plain) => return Ok(plain),
            None => return Err(self.fault(cut_off)),
        }
        let Some(escaped) = self.next() else { return Err(self.fault(cut_off)) };
        Ok(match escaped {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'e' => '\u{1b}',
            's' => ' ',
            'd' => '\u{7f}',
            '0'..='7' => {
                self.at -= 1;
                return self.code(8, 3);
            }
            'x' if self.takes("{") => {
                let code = self.code(16, 6)?;
                if !self.takes("}") {
                    return Err(self.fault("} was expected behind \\x{"));
                }
                code
            }
            'x' => return self.code(16, 2),
            '^' => match self.next() {
                Some(letter) => char::from_u32(u32::from(letter) & 31).unwrap_or(' '),
                None => return Err(self.fault(cut_off)),
            },
            other => other,
        })
    }

    fn code(&mut self, base: u32, most: usize) -> Result<char, TermFault> {
        let mut code = 0;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|it| it.to_digit(base)) else { break };
            code = code * base + digit;
            self.at += 1;
        }
        char::from_u32(code).ok_or_else(|| self.fault("no character has this code"))
    }

    fn word(&mut self) -> String {
        let from = self.at;
        while self.peek().is_some_and(|it| it.is_alphanumeric() || matches!(it, '_' | '@')) {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    /// Whole, with a base (`16#ff`), with underscores, or a float.
    fn number(&mut self) -> Result<Term, TermFault> {
        let from = self.at;
        if matches!(self.peek(), Some('-' | '+')) {
            self.at += 1;
        }
        if !self.peek().is_some_and(|it| it.is_ascii_digit()) {
            return Err(self.fault("a digit was expected"));
        }
        self.word();
        let digit_follows = |reader: &Self, nth: usize| {
            reader.chars.get(reader.at + nth).is_some_and(char::is_ascii_alphanumeric)
        };
        // A full stop ends the term where no digit follows.
        if matches!(self.peek(), Some('.' | '#')) && digit_follows(self, 1) {
            self.at += 1;
            self.word();
            let is_exponent = self.chars.get(self.at - 1).is_some_and(|it| matches!(it, 'e' | 'E'));
            if is_exponent && matches!(self.peek(), Some('-' | '+')) && digit_follows(self, 1) {
                self.at += 1;
                self.word();
            }
        }
        Ok(Term::Number(self.chars[from..self.at].iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Term {
        let mut terms = parse(text.as_bytes()).unwrap();
        assert_eq!(terms.len(), 1, "{terms:?}");
        terms.remove(0)
    }

    fn atom(text: &str) -> Term {
        Term::Atom(text.to_owned())
    }

    fn number(text: &str) -> Term {
        Term::Number(text.to_owned())
    }

    #[test]
    fn every_kind_of_term_is_read() {
        let text = "%% coding: utf-8\n{release, 'Elixir.Demo', \"0.1\" \".0\", [-1, 2.5, 1.0e-3, 16#fF, 1_000, $a, $\\n]\n\
                    , <<\"0\\\\.1\\\\..*\">>, <<>>, <<97, \"b\"/utf8>>, #{a => [], 'b c' => {}}}. % the end";
        let list = ["-1", "2.5", "1.0e-3", "16#fF", "1_000", "97", "10"].map(number).to_vec();
        let map = vec![(atom("a"), Term::List(Vec::new())), (atom("b c"), Term::Tuple(Vec::new()))];
        let binary = |text: &str| Term::Binary(text.to_owned());
        let expected = vec![
            atom("release"),
            atom("Elixir.Demo"),
            Term::Text("0.1.0".to_owned()),
            Term::List(list),
            binary(r"0\.1\..*"),
            binary(""),
            binary("ab"),
            Term::Map(map),
        ];
        assert_eq!(one(text), Term::Tuple(expected));
        assert_eq!(parse(b"a. b.\n1.").unwrap(), [atom("a"), atom("b"), number("1")]);
        assert_eq!(one(r#""\x{41}\102\x43\s\"\\\^a\d"."#), Term::Text("ABC \"\\\u{1}\u{7f}".to_owned()));
        assert_eq!(parse(b"\"\xe9\".").unwrap(), [Term::Text("é".to_owned())], "Latin-1");
        assert_eq!(parse(b" % nothing"), Ok(Vec::new()));
    }

    #[test]
    fn a_fault_says_its_line() {
        for (text, said) in [
            ("{a,\n b", "line 2: the file ends in the middle of a list or tuple"),
            ("{a\n\n b}.", "line 3: a comma or the end of the list or tuple was expected"),
            ("[a|b].", "line 1: improper lists are not read here"),
            ("{a}", "line 1: a full stop was expected behind the term"),
            ("\n\"a", "line 2: the file ends in the middle of a quoted text"),
            ("Var.", "line 1: no term begins like this"),
            ("<<300>>.", "line 1: a byte of a binary is a number up to 255"),
            ("\"\\x{d800}\".", "line 1: no character has this code"),
            ("-.", "line 1: a digit was expected"),
            ("#{a=>}.", "line 1: no term begins like this"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), said, "{text}");
        }
    }

    #[test]
    fn what_is_too_deep_or_too_much_is_refused() {
        let deep = "[".repeat(1_000_000);
        assert!(parse(deep.as_bytes()).unwrap_err().to_string().contains("too deeply"));
        let many = format!("[{}a].", "a,".repeat(MAX_TERMS));
        assert!(parse(many.as_bytes()).unwrap_err().to_string().contains("too many"));
        let at_the_limit = format!("{}{}.", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        parse(at_the_limit.as_bytes()).unwrap();
    }
}

//! Takes from what is loaded what only people read: the generated names by which the module and its bindings find each other
//! (a hash in each, which no compression makes smaller), indentation, and comments. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

const IMPORTS: u8 = 2;

/// The module with a short name for each function that it imports from its bindings, and the bindings under the same names.
pub(crate) fn names(module: &[u8], bindings: &str) -> Result<(Vec<u8>, String)> {
    let mut input = Input { bytes: module, at: 0 };
    let mut out = input.take(8)?.to_vec();
    let mut renamed = BTreeMap::new();
    while input.at < module.len() {
        let (id, length) = (input.byte()?, input.number()?);
        let section = input.take(length)?;
        let section = if id == IMPORTS { imports(section, &mut renamed)? } else { section.to_vec() };
        out.push(id);
        number(&mut out, section.len());
        out.extend(section);
    }
    Ok((out, defined_as(bindings, &renamed)?))
}

fn imports(section: &[u8], renamed: &mut BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut input = Input { bytes: section, at: 0 };
    let mut out = Vec::new();
    let count = input.number()?;
    number(&mut out, count);
    for at in 0..count {
        let module = input.name()?;
        let (name, short) = (input.name()?, format!("_{at}"));
        for text in [module, short.as_bytes()] {
            number(&mut out, text.len());
            out.extend(text);
        }
        renamed.insert(String::from_utf8(name.to_vec())?, short);
        let begin = input.at;
        if input.byte()? != 0 {
            bail!("the module imports something that is no function");
        }
        input.number()?;
        out.extend(&section[begin..input.at]);
    }
    Ok(out)
}

/// Each function has a line of its own that begins with its name.
fn defined_as(bindings: &str, renamed: &BTreeMap<String, String>) -> Result<String> {
    let mut missing = renamed.clone();
    let lines: Vec<String> = bindings
        .lines()
        .map(|line| match line.trim_start().split_once(':') {
            Some((name, rest)) => match missing.remove(name) {
                Some(short) => format!("{short}:{rest}"),
                None => line.to_owned(),
            },
            None => line.to_owned(),
        })
        .collect();
    match missing.keys().next() {
        Some(name) => bail!("the bindings do not define {name}, which the module imports"),
        None => Ok(lines.join("\n")),
    }
}

/// Without indentation, empty lines, and lines that are comments. Our scripts have no text of several lines.
pub(crate) fn script(text: &str) -> String {
    let kept = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    kept.collect::<Vec<_>>().join("\n")
}

/// The same of a style sheet, whose comments may be anywhere.
pub(crate) fn style(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("/*") {
        kept.push_str(before);
        rest = after.split_once("*/").map_or("", |it| it.1);
    }
    kept.push_str(rest);
    kept.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some(taken) = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end)) else {
            bail!("the module ends too early");
        };
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("the module has a number that is too long");
    }

    fn name(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }
}

fn number(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one import of each name, and a section after them.
    fn module(imported: &[&str]) -> Vec<u8> {
        let mut section = Vec::new();
        number(&mut section, imported.len());
        for name in imported {
            for text in ["./app_bg.js", name] {
                number(&mut section, text.len());
                section.extend(text.as_bytes());
            }
            section.extend([0, 7]);
        }
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.push(IMPORTS);
        number(&mut module, section.len());
        module.extend(section);
        module.extend([3, 2, 1, 7]);
        module
    }

    #[test]
    fn module_and_bindings_find_each_other_by_short_names() {
        let long: Vec<String> = (0..200).map(|it| format!("__wbg_call_{it:016x}")).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        let short: Vec<String> = (0..200).map(|it| format!("_{it}")).collect();
        let short: Vec<&str> = short.iter().map(String::as_str).collect();
        let bindings =
            long.iter().map(|it| format!("        {it}: function(arg0) {{")).collect::<Vec<_>>().join("\n");
        let (made, bindings) = names(&module(&long), &bindings).unwrap();
        assert!(made == module(&short));
        assert_eq!(bindings.lines().nth(150), Some("_150: function(arg0) {"));
    }

    #[test]
    fn a_function_that_nothing_defines_is_named() {
        let error = names(&module(&["__wbg_call_1"]), "        __wbg_call_2: function() {").unwrap_err();
        assert!(error.to_string().contains("__wbg_call_1"), "{error}");
        assert!(names(&module(&["__wbg_call_1"])[..20], "").is_err());
    }

    #[test]
    fn what_only_people_read_is_left_out() {
        assert_eq!(
            script("// why\nlet a = 1;\n\n    // how\n    a += 1; // not this\n"),
            "let a = 1;\na += 1; // not this"
        );
        assert_eq!(style("a {\n  /* why\n     so */\n  top: 0; /* here */\n}\n"), "a {\ntop: 0;\n}");
    }
}

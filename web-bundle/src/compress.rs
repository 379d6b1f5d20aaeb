//! Compresses once, when the console is built, as strongly as can be: serving then costs nothing.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

/// What one file weighs in each form.
pub(crate) struct Sizes {
    pub(crate) name: String,
    pub(crate) plain: usize,
    pub(crate) gzip: usize,
    pub(crate) brotli: usize,
}

/// Writes `NAME.br` and `NAME.gz` beside each file below the folder.
pub(crate) fn folder(root: &Path) -> Result<Vec<Sizes>> {
    let mut sizes = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                sizes.push(file(&path, name)?);
            }
        }
    }
    sizes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sizes)
}

fn file(path: &Path, name: String) -> Result<Sizes> {
    let plain = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&plain)?;
    let gzip = gzip.finish()?;
    let mut brotli = Vec::new();
    brotli::BrotliCompress(&mut plain.as_slice(), &mut brotli, &brotli::enc::BrotliEncoderParams::default())?;
    for (extension, bytes) in [("gz", &gzip), ("br", &brotli)] {
        fs::write(format!("{}.{extension}", path.display()), bytes)
            .with_context(|| format!("cannot write {}.{extension}", path.display()))?;
    }
    Ok(Sizes { name, plain: plain.len(), gzip: gzip.len(), brotli: brotli.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_gets_both_forms_and_they_are_smaller() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("assets")).unwrap();
        fs::write(folder.path().join("assets/app.js"), "let a = 1;\n".repeat(500)).unwrap();
        let sizes = super::folder(folder.path()).unwrap();
        assert_eq!(sizes.len(), 1);
        assert!(sizes[0].brotli < sizes[0].gzip && sizes[0].gzip < sizes[0].plain);
        assert_eq!(fs::read(folder.path().join("assets/app.js.br")).unwrap().len(), sizes[0].brotli);
    }
}

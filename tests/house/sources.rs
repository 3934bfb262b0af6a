//! Reads the modules of a crate, and which of them uses which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta, UseTree};

/// Where a module is: the crate's name, then the modules down to it.
pub type Place = Vec<String>;

/// The modules of all crates, and the arrows between them.
#[derive(Debug, Default)]
pub struct House {
    modules: BTreeMap<Place, Module>,
}

/// What one module says, without what is in its inner modules.
#[derive(Debug, Default)]
struct Module {
    /// The names that `use` brings here, and the whole paths that they stand for.
    imports: BTreeMap<String, Vec<String>>,
    /// The paths that are written here, whole or as they stand.
    paths: BTreeSet<Vec<String>>,
}

impl House {
    /// Adds the crate whose root is this file.
    pub fn add_crate(&mut self, name: &str, root: &Path) {
        self.add_file(vec![name.to_owned()], root, root);
    }

    /// Adds a crate out of one text, with its modules inline.
    pub fn add_text(&mut self, name: &str, text: &str) {
        let file = syn::parse_file(text).expect("Rust");
        self.add_items(vec![name.to_owned()], &file.items, Path::new(""), Path::new(""));
    }

    /// Each arrow from a module to another one.
    pub fn arrows(&self) -> BTreeSet<(Place, Place)> {
        let mut arrows = BTreeSet::new();
        for (place, module) in &self.modules {
            for path in module.imports.values().chain(&module.paths) {
                if let Some(to) = self.resolve(place, path, 0)
                    && to != *place
                {
                    arrows.insert((place.clone(), to));
                }
            }
        }
        arrows
    }

    fn add_file(&mut self, place: Place, path: &Path, root: &Path) {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.add_items(place, &file.items, path, root);
    }

    fn add_items(&mut self, place: Place, items: &[Item], path: &Path, root: &Path) {
        let mut reader = Reader::default();
        for item in items {
            let Item::Mod(inner) = item else {
                reader.visit_item(item);
                continue;
            };
            if is_for_tests(&inner.attrs) {
                continue;
            }
            let below = [place.clone(), vec![inner.ident.to_string()]].concat();
            match &inner.content {
                Some((_, items)) => self.add_items(below, items, path, root),
                None => {
                    let file = file_of(&below[1..], &inner.attrs, path, root);
                    self.add_file(below, &file, root);
                }
            }
        }
        // Two systems may have a file each for one module.
        let module = self.modules.entry(place).or_default();
        module.imports.extend(reader.module.imports);
        module.paths.extend(reader.module.paths);
    }

    /// The module in which the last thing that this path names is written, if it is one of these crates'.
    fn resolve(&self, from: &Place, path: &[String], depth: usize) -> Option<Place> {
        let mut place = from.clone();
        let mut rest = path;
        let mut begun = false;
        while let [first, more @ ..] = rest {
            let below = [place.clone(), vec![first.clone()]].concat();
            match first.as_str() {
                "crate" if !begun => place.truncate(1),
                "self" => {}
                "super" => {
                    place.pop()?;
                }
                _ if self.modules.contains_key(&below) => place = below,
                name if !begun && self.modules.contains_key(&vec![name.to_owned()]) => {
                    place = vec![name.to_owned()];
                }
                // What a module shows of another one's is that one's.
                name => {
                    let import = self
                        .modules
                        .get(&place)
                        .and_then(|module| module.imports.get(name));
                    let own = !begun && import.is_some_and(|import| import == path);
                    return match import {
                        Some(import) if !own && depth < DEPTH_MAX => self
                            .resolve(&place, &[import, more].concat(), depth + 1)
                            .or(begun.then_some(place)),
                        _ => begun.then_some(place),
                    };
                }
            }
            begun = true;
            rest = more;
        }
        begun.then_some(place)
    }
}

/// Re-exports of re-exports end by then, or go in a circle of their own.
const DEPTH_MAX: usize = 8;

/// The file of a module that the file at `path` names, counted from the crate's root.
fn file_of(below: &[String], attributes: &[Attribute], path: &Path, root: &Path) -> PathBuf {
    let named = attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(name), ..
            }) => Some(name.value()),
            _ => None,
        },
        _ => None,
    });
    if let Some(name) = named {
        return path.with_file_name(name);
    }
    let module = below
        .iter()
        .fold(root.with_file_name(""), |path, name| path.join(name));
    let file = module.with_extension("rs");
    if file.exists() {
        file
    } else {
        module.join("mod.rs")
    }
}

/// Whether an item exists in tests alone.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = match &attribute.meta {
            Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            meta => return meta.path().is_ident("test"),
        };
        condition == "test" || condition.starts_with("all (test")
    })
}

#[derive(Debug, Default)]
struct Reader {
    module: Module,
}

impl Reader {
    fn add_use(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = before.last() {
                    self.module.imports.insert(last.clone(), before.to_vec());
                }
            }
            UseTree::Name(name) => {
                self.module
                    .imports
                    .insert(name.ident.to_string(), with(&name.ident));
            }
            // What has no name of its own is still an arrow.
            UseTree::Rename(rename) if rename.rename == "_" => {
                self.module.paths.insert(with(&rename.ident));
            }
            UseTree::Rename(rename) => {
                let path = match rename.ident.to_string().as_str() {
                    "self" => before.to_vec(),
                    _ => with(&rename.ident),
                };
                self.module.imports.insert(rename.rename.to_string(), path);
            }
            UseTree::Glob(_) => {
                self.module.paths.insert(before.to_vec());
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before)),
        }
    }

    /// The paths among the words of a macro's call, which syn does not take apart.
    fn add_words(&mut self, tokens: &str) {
        let words = tokens.replace("::", " @ ");
        let mut path: Vec<String> = Vec::new();
        let mut joined = false;
        for word in words.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '@')) {
            match word {
                "" => {}
                "@" => joined = true,
                word => {
                    if !joined {
                        self.add_path(std::mem::take(&mut path));
                    }
                    path.push(word.to_owned());
                    joined = false;
                }
            }
        }
        self.add_path(path);
    }

    fn add_path(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.module.paths.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            Item::Struct(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Const(it) => &it.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add_path(path.segments.iter().map(|it| it.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_words(&call.tokens.to_string());
    }
}

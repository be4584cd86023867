//! Which package may depend on which: `sim → node → io/* → core/*`, and nothing sideways in `io`.

use std::collections::BTreeMap;

use super::Problem;
use crate::workspace::Package;

/// The floors of the building, from the folder of a package.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    Core,
    Io,
    Node,
    Sim,
    Bench,
    Xtask,
}

impl Layer {
    fn of(folder: &str) -> Option<Self> {
        match folder.split_once('/') {
            Some(("core", _)) => Some(Self::Core),
            Some(("io", _)) => Some(Self::Io),
            None if folder == "node" => Some(Self::Node),
            None if folder == "sim" => Some(Self::Sim),
            Some(("bench", _)) => Some(Self::Bench),
            None if folder == "xtask" => Some(Self::Xtask),
            _ => None,
        }
    }

    fn may_use(self, other: Self) -> bool {
        match self {
            Self::Core | Self::Io => other == Self::Core,
            Self::Node => matches!(other, Self::Core | Self::Io),
            Self::Sim | Self::Bench => matches!(other, Self::Core | Self::Io | Self::Node),
            Self::Xtask => false,
        }
    }
}

/// Checks names, direction (dev-dependencies included) and cycles.
pub(super) fn check(packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|package| (package.name.as_str(), package)).collect();
    for package in packages {
        problems.extend(check_name(package));
        let Some(layer) = Layer::of(&package.folder) else {
            problems.push(Problem::whole(&package.folder, "a package lives in core/, io/, bench/, node, sim or xtask"));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(other) = by_name.get(dependency.name.as_str()) else { continue };
            if Layer::of(&other.folder).is_some_and(|other| !layer.may_use(other)) {
                let what = format!("{} must not depend on {}", package.name, other.name);
                problems.push(Problem::whole(&package.folder, what));
            }
        }
    }
    problems.extend(cycles(&by_name));
    problems
}

fn check_name(package: &Package) -> Option<Problem> {
    let last = package.folder.rsplit('/').next().unwrap_or_default();
    let wanted = match Layer::of(&package.folder) {
        Some(Layer::Xtask) => last.to_owned(),
        // What it does says more than how large its subjects are.
        Some(Layer::Bench) => "sealtide-bench".to_owned(),
        _ => format!("sealtide-{last}"),
    };
    (package.name != wanted).then(|| Problem::whole(&package.folder, format!("{} is not named {wanted}", package.name)))
}

/// Every cycle once, told from its first package by name. Cargo allows cycles through dev-dependencies; the house not.
fn cycles(by_name: &BTreeMap<&str, &Package>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (start, package) in by_name {
        let mut trail = vec![*start];
        if let Some(cycle) = find_back(by_name, package, start, &mut trail)
            && cycle.iter().min() == Some(start)
        {
            problems.push(Problem::whole(&package.folder, format!("cycle: {} → {start}", cycle.join(" → "))));
        }
    }
    problems
}

/// A path from `package` back to `start`.
fn find_back<'a>(
    by_name: &BTreeMap<&'a str, &'a Package>,
    package: &'a Package,
    start: &str,
    trail: &mut Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    for dependency in &package.dependencies {
        if dependency.name == start {
            return Some(trail.clone());
        }
        let Some((name, next)) = by_name.get_key_value(dependency.name.as_str()) else { continue };
        if trail.contains(name) {
            continue;
        }
        trail.push(name);
        let found = find_back(by_name, next, start, trail);
        if found.is_some() {
            return found;
        }
        trail.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(folder: &str, name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependencies =
            dependencies.iter().map(|(name, dev)| Dependency { name: (*name).to_owned(), dev: *dev }).collect();
        Package { name: name.to_owned(), folder: folder.to_owned(), dependencies }
    }

    fn told(packages: &[Package]) -> Vec<String> {
        check(packages).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn arrows_that_point_down_are_fine() {
        let packages = [
            package("core/crypto", "sealtide-crypto", &[("sha2", false)]),
            package("core/wire", "sealtide-wire", &[("sealtide-crypto", false)]),
            package("io/link", "sealtide-link", &[("sealtide-wire", false), ("tokio", false)]),
            package("node", "sealtide-node", &[("sealtide-link", false), ("sealtide-wire", false)]),
            package("sim", "sealtide-sim", &[("sealtide-node", false), ("sealtide-crypto", true)]),
            package("xtask", "xtask", &[("serde_json", false)]),
        ];
        assert_eq!(told(&packages), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_point_up_or_sideways_are_refused() {
        let mut packages = vec![
            package("core/crypto", "sealtide-crypto", &[]),
            package("io/store", "sealtide-store", &[]),
            package("io/link", "sealtide-link", &[]),
            package("node", "sealtide-node", &[]),
            package("sim", "sealtide-sim", &[]),
            package("xtask", "xtask", &[]),
        ];
        let refused = [
            (0, "sealtide-store"),
            (0, "sealtide-node"),
            (1, "sealtide-link"),
            (1, "sealtide-node"),
            (3, "sealtide-sim"),
            (5, "sealtide-crypto"),
            (2, "xtask"),
        ];
        for (at, name) in refused {
            for dev in [false, true] {
                packages[at].dependencies = vec![Dependency { name: name.to_owned(), dev }];
                let problem = format!("{}: {} must not depend on {name}", packages[at].folder, packages[at].name);
                assert_eq!(told(&packages), [problem]);
                packages[at].dependencies.clear();
            }
        }
    }

    #[test]
    fn cycles_are_refused_once() {
        let packages = [
            package("core/a", "sealtide-a", &[("sealtide-b", false)]),
            package("core/b", "sealtide-b", &[("sealtide-c", false)]),
            package("core/c", "sealtide-c", &[("sealtide-a", true)]),
            package("core/d", "sealtide-d", &[("sealtide-a", false)]),
        ];
        assert_eq!(told(&packages), ["core/a: cycle: sealtide-a → sealtide-b → sealtide-c → sealtide-a"]);
    }

    #[test]
    fn names_follow_folders() {
        assert_eq!(told(&[package("core/wire", "wire", &[])]), ["core/wire: wire is not named sealtide-wire"]);
        assert_eq!(told(&[package("extra/wire", "sealtide-wire", &[])]).len(), 1);
        assert!(told(&[package("bench/micro", "sealtide-bench", &[])]).is_empty());
    }
}

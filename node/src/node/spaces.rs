//! The spaces and folders of a node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use data_encoding::HEXUPPER;
use sealtide_ibgib::{Stamp, Verified, space_genesis, uuid};
use sealtide_identity::{Grant, NodeId, Role, SpaceId};
use sealtide_store::{Peer, SpaceLabel};

use super::{DocumentConflicts, Node, lock};
use crate::commands::spaces::forget;
use crate::commands::{members_failure, store_failure};
use crate::failure::Failure;
use crate::real::now;
use crate::share::Share;
use crate::world::OsEntropy;

/// The kind, in the own label, of a space that is being made or imported. No frame and no peer says it.
pub(super) const UNFINISHED_KIND: &str = "unfinished";

/// Whether people see nothing of a space of this kind.
pub(super) fn is_hidden(label: &SpaceLabel) -> bool {
    let kinds = [crate::audit::AUDIT_KIND, crate::identity::IDENTITY_KIND, crate::gateway::APP_KIND, UNFINISHED_KIND];
    kinds.contains(&label.kind.as_str())
}

impl Node {
    /// Makes a space of its own, with oneself as its only member and admin. Waits for the disk.
    ///
    /// # Errors
    /// As the store reports, and when the members cannot be signed.
    pub fn create_space(&self, name: &str, kind: &str) -> Result<SpaceId, Failure> {
        let (space, label) = self.begin_space(name, kind)?;
        self.list_space(space, &label, kind).inspect_err(|_| drop(forget(self, &space)))?;
        self.audit().note("space_created", &[("space", &space.to_string()), ("name", &label)]);
        Ok(space)
    }

    /// Makes a space of its own that nobody sees before [`Node::list_space`]: a start before that forgets it. Gives its
    /// local name too.
    ///
    /// # Errors
    /// As [`Node::create_space`]; nothing stays.
    pub(crate) fn begin_space(&self, name: &str, kind: &str) -> Result<(SpaceId, String), Failure> {
        let stamp = Stamp { ms: now().wall_ms };
        let first = space_genesis(name, kind, &self.id().to_string(), stamp, &uuid(&mut OsEntropy));
        let id = self.space_id(&first)?;
        let members = self.engine().first_members(id).map_err(members_failure)?;
        let members = members.into_iter().collect();
        self.begun(id, name, || self.engine().create_space_with(first, members).map(drop).map_err(store_failure))
    }

    /// As [`Node::begin_space`], for a space that was made elsewhere; its records are for the caller to bring.
    ///
    /// # Errors
    /// Exit 2 when it is here already.
    pub(crate) fn begin_foreign_space(&self, id: SpaceId, name: &str) -> Result<(SpaceId, String), Failure> {
        self.begun(id, name, || self.store().adopt_space(id).map(drop).map_err(store_failure))
    }

    fn begun(
        &self,
        id: SpaceId,
        name: &str,
        make: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(SpaceId, String), Failure> {
        let _one_at_a_time = lock(&self.0.beginning);
        if self.has_space(&id) || self.known().label(&id).is_some() {
            let text = format!("the space is here already, as {}", self.label(&id));
            return Err(Failure::usage("space_here", text).hint("`sealtide spaces remove` forgets it first"));
        }
        let label = self.free_label(name);
        let row = SpaceLabel { name: label.clone(), kind: UNFINISHED_KIND.to_owned(), dir: None };
        self.known().put_label(&id, Some(&row)).map_err(store_failure)?;
        make().inspect_err(|_| drop(forget(self, &id)))?;
        Ok((id, label))
    }

    /// The last step of a space that was begun: from here on it is listed, with oneself as admin.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn list_space(&self, space: SpaceId, label: &str, kind: &str) -> Result<(), Failure> {
        self.grant(space, self.id(), Role::Admin)?;
        let row = SpaceLabel { name: label.to_owned(), kind: kind.to_owned(), dir: None };
        self.known().put_label(&space, Some(&row)).map_err(store_failure)
    }

    /// Forgets the spaces that a crash left begun, and those of which it left nothing but the name when they were removed.
    pub(super) fn forget_unfinished(&self) {
        for (space, label) in self.known().labels() {
            let is_left = !is_hidden(&label) && label.dir.is_none() && !self.has_space(&space);
            if (label.kind == UNFINISHED_KIND || is_left)
                && let Err(error) = forget(self, &space)
            {
                tracing::warn!(name = label.name, %error, "a space that was not finished could not be forgotten");
            }
        }
    }

    /// The id of the space that begins with this frame.
    fn space_id(&self, first: &Verified) -> Result<SpaceId, Failure> {
        let hash = HEXUPPER.decode(first.address().gib().as_bytes()).ok();
        let id = hash.and_then(|hash| Some(SpaceId::from_bytes(hash.try_into().ok()?)));
        id.ok_or_else(|| Failure::failed("space", "the first frame of a space has no plain hash"))
    }

    /// Writes a grant and lets open sessions see it.
    ///
    /// # Errors
    /// As the store reports.
    pub fn grant(&self, space: SpaceId, node: NodeId, role: Role) -> Result<(), Failure> {
        let grant = Grant { space, node, role, since_ms: now().wall_ms, invite: None };
        self.known().put_grant(&grant).map_err(|error| Failure::failed("store", error.to_string()))?;
        self.engine().grants_changed();
        Ok(())
    }

    /// A local name for a space: `name` cleaned, with `-2`, `-3` … when it is taken.
    pub fn free_label(&self, name: &str) -> String {
        let clean: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
            .take(60)
            .collect();
        let clean = if clean.is_empty() { "space".to_owned() } else { clean };
        let taken: Vec<String> = self.known().labels().into_iter().map(|(_, label)| label.name).collect();
        let mut label = clean.clone();
        let mut count = 2;
        while taken.contains(&label) {
            label = format!("{clean}-{count}");
            count += 1;
        }
        label
    }

    /// The directories that are shared, by the settings in the store.
    pub fn shared_dirs(&self) -> Vec<(SpaceId, PathBuf)> {
        self.known()
            .labels()
            .into_iter()
            .filter_map(|(space, label)| Some((space, PathBuf::from(label.dir?))))
            .collect()
    }

    /// The space of a directory that is shared already.
    pub fn space_of_dir(&self, dir: &Path) -> Option<SpaceId> {
        self.shared_dirs().into_iter().find(|(_, shared)| shared == dir).map(|(space, _)| space)
    }

    /// Why a directory cannot be that of another space.
    pub(crate) fn shared_already(&self, dir: &Path, space: &SpaceId) -> Failure {
        let text = format!("{} is shared already, as {}", dir.display(), self.label(space));
        Failure::usage("dir_shared", text).hint("name another directory")
    }

    /// Refuses a directory that cannot be shared: inside another shared one, around one, or around the home.
    ///
    /// # Errors
    /// Exit 2.
    pub fn check_dir(&self, dir: &Path) -> Result<(), Failure> {
        let refuse = |text: String| Err(Failure::usage("dir", text).hint("share a directory of its own"));
        let home = self.home().root().canonicalize().unwrap_or_else(|_| self.home().root().to_owned());
        if home.starts_with(dir) || dir.starts_with(&home) {
            return refuse(format!("{} and the home {} lie inside each other", dir.display(), home.display()));
        }
        for (_, shared) in self.shared_dirs() {
            if shared != dir && (shared.starts_with(dir) || dir.starts_with(&shared)) {
                return refuse(format!(
                    "{} and the shared folder {} lie inside each other",
                    dir.display(),
                    shared.display()
                ));
            }
        }
        Ok(())
    }

    /// Joins a directory and a space for good; the folder opens when the node serves.
    ///
    /// # Errors
    /// As [`Node::note_dir`] and [`Node::open_share`].
    pub fn share_dir(&self, space: SpaceId, dir: &Path) -> Result<Share, Failure> {
        self.note_dir(space, dir)?;
        self.open_share(space, dir).inspect_err(|_| {
            let mut label = self.known().label(&space).unwrap_or_default();
            label.dir = None;
            let _ = self.known().put_label(&space, Some(&label));
        })
    }

    /// Notes where a space is kept from the next start on, at the latest.
    ///
    /// # Errors
    /// Exit 2 for a directory that another space is kept in, and as [`Node::check_dir`]; as the store reports.
    pub fn note_dir(&self, space: SpaceId, dir: &Path) -> Result<(), Failure> {
        // Of two commands that looked before, one finds here what the other noted: files of one space never go to those of another.
        let _one_at_a_time = lock(&self.0.keeping);
        if let Some((there, _)) =
            self.shared_dirs().into_iter().find(|(other, shared)| *other != space && shared == dir)
        {
            return Err(self.shared_already(dir, &there));
        }
        self.check_dir(dir)?;
        let text = dir.to_str().ok_or_else(|| Failure::usage("dir", format!("{} is not UTF-8", dir.display())))?;
        let mut label = self.known().label(&space).unwrap_or_default();
        label.dir = Some(text.to_owned());
        self.known().put_label(&space, Some(&label)).map_err(|error| Failure::failed("store", error.to_string()))
    }

    /// Opens the folders that are shared. One that cannot be opened is told by `status`; calling this again tries it
    /// again.
    pub fn open_shares(&self) {
        for (space, dir) in self.shared_dirs() {
            // A home that comes out of a backup: nothing was ever seen in the directory, so nothing can look deleted.
            if !dir.exists() && !self.home().folder_state(&space).exists() {
                let _ = std::fs::create_dir_all(&dir).inspect_err(|error| {
                    tracing::warn!(dir = %dir.display(), %error, "the directory of a space could not be made");
                });
            }
            if let Err(failure) = self.open_share(space, &dir)
                && lock(&self.0.unopened).insert(space, failure.with_hint()).is_none()
            {
                tracing::warn!(dir = %dir.display(), error = %failure, "a shared folder could not be opened");
            }
        }
    }

    /// Tries the folders again that could not be opened.
    pub fn open_unopened_shares(&self) {
        if !lock(&self.0.unopened).is_empty() {
            self.open_shares();
        }
    }

    /// Why the folder of a space is not open, if it should be.
    pub fn unopened(&self, space: &SpaceId) -> Option<String> {
        lock(&self.0.unopened).get(space).cloned()
    }

    /// Opens the folder of a space, or returns the one that is open.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open_share(&self, space: SpaceId, dir: &Path) -> Result<Share, Failure> {
        if let Some(share) = self.shares().get(&space) {
            return Ok(share.clone());
        }
        let share = Share::start(self.engine().clone(), space, dir, &self.home().folder_state(&space))?;
        lock(&self.0.unopened).remove(&space);
        self.shares().insert(space, share.clone());
        Ok(share)
    }

    /// Forgets that a directory belongs to a space; the files stay.
    pub fn unshare(&self, space: &SpaceId) {
        let share = self.shares().remove(space);
        if let Some(share) = share {
            share.stop();
        }
        if let Some(mut label) = self.known().label(space) {
            label.dir = None;
            let _ = self.known().put_label(space, Some(&label));
        }
        lock(&self.0.unopened).remove(space);
        let _ = std::fs::remove_file(self.home().folder_state(space));
    }

    /// The open folders.
    pub fn shares(&self) -> MutexGuard<'_, BTreeMap<SpaceId, Share>> {
        lock(&self.0.shares)
    }

    /// What is known of documents that need a person.
    pub(crate) fn document_conflicts(&self) -> MutexGuard<'_, DocumentConflicts> {
        lock(&self.0.document_conflicts)
    }

    /// The spaces where the own role is admin, in order of their names.
    pub(crate) fn administered(&self) -> Vec<SpaceId> {
        let mut spaces = self.spaces();
        spaces.retain(|space| self.engine().role(&self.id(), space) == Some(Role::Admin));
        spaces
    }

    /// Finds a space by its local name or id.
    ///
    /// # Errors
    /// Exit 2 when there is none of that name.
    pub fn find_space(&self, name: &str) -> Result<SpaceId, Failure> {
        if let Ok(id) = name.parse::<SpaceId>()
            && self.has_space(&id)
        {
            return Ok(id);
        }
        let found = self.spaces().into_iter().find(|space| self.label(space) == name);
        found.ok_or_else(|| {
            Failure::usage("no_space", format!("no space named {name}"))
                .hint("`sealtide spaces list` shows what there is")
        })
    }

    /// As [`Node::find_space`], for one that is to be forgotten: its name may be all that is left of it.
    ///
    /// # Errors
    /// As [`Node::find_space`].
    pub(crate) fn find_space_to_forget(&self, name: &str) -> Result<SpaceId, Failure> {
        self.find_space(name).or_else(|failure| {
            let mut labels = self.known().labels().into_iter().filter(|(_, label)| !is_hidden(label));
            let is_it = |(space, label): &(SpaceId, SpaceLabel)| label.name == name || space.to_string() == name;
            labels.find(is_it).map(|(space, _)| space).ok_or(failure)
        })
    }

    /// The space named, or the only one there is.
    ///
    /// # Errors
    /// Exit 2 when there is none of that name, or several and none was named.
    pub fn space_or_only(&self, name: Option<&str>) -> Result<SpaceId, Failure> {
        match (name, self.spaces().as_slice()) {
            (Some(name), _) => self.find_space(name),
            (None, [only]) => Ok(*only),
            (None, []) => Err(Failure::usage("no_space", "no space here yet").hint("`sealtide up DIR` shares one")),
            (None, _) => Err(Failure::usage("which_space", "there are several spaces; name one")
                .hint("`sealtide spaces list` shows them")),
        }
    }

    /// Finds a peer by name, id, or a beginning of its id that only one has.
    ///
    /// # Errors
    /// Exit 2.
    pub fn find_peer(&self, name: &str) -> Result<Peer, Failure> {
        let peers = self.known().peers();
        let id = name.parse::<NodeId>().ok();
        if let Some(found) = peers.iter().find(|peer| peer.name == name || Some(peer.node) == id) {
            return Ok(found.clone());
        }
        let begin = name.strip_prefix("stn1").unwrap_or(name).to_ascii_lowercase();
        let begins = |peer: &&Peer| peer.node.to_string().strip_prefix("stn1").is_some_and(|id| id.starts_with(&begin));
        match peers.iter().filter(begins).collect::<Vec<_>>().as_slice() {
            [only] if begin.len() >= 4 => Ok((*only).clone()),
            _ => {
                Err(Failure::usage("no_peer", format!("no peer named {name}")).hint("`sealtide peers list` shows them"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::commands::spaces;

    fn open(dir: &Path) -> Node {
        Node::new_at(dir.join("home"))
    }

    /// However many commands found a directory free a moment ago, it becomes that of one space, and what is in it or around it of none.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_is_that_of_one_space() {
        let place = tempfile::tempdir().unwrap();
        let node = open(place.path());
        let dirs = ["a", "a", "a/b", "a/b"].map(|dir| place.path().join(dir));
        std::fs::create_dir_all(&dirs[2]).unwrap();
        let spaces = ["n1", "n2", "n3", "n4"].map(|name| node.create_space(name, "folder").unwrap());
        let start = Barrier::new(4);
        let note = &|at: usize| {
            start.wait();
            node.note_dir(spaces[at], &dirs[at]).map_err(|failure| failure.code)
        };
        let noted: Vec<Result<(), String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || note(at))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(noted.iter().filter(|noted| noted.is_ok()).count(), 1, "{noted:?}");
        let refused = noted.iter().filter_map(|noted| noted.as_ref().err());
        assert!(
            refused.clone().any(|code| code == "dir_shared") && refused.clone().any(|code| code == "dir"),
            "{noted:?}"
        );
        assert_eq!(node.shared_dirs().len(), 1);
        let other = node.shared_dirs().remove(0).0;
        let free = spaces.into_iter().find(|space| *space != other).unwrap();
        let shared = node.shared_dirs().remove(0).1;
        assert_eq!(node.share_dir(free, &shared).map(drop).unwrap_err().code, "dir_shared");
        node.note_dir(other, &shared).unwrap();
    }

    /// A crash behind the last but one step of a removal leaves a name: it can be forgotten, and the next start does so by itself.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_without_a_space_can_be_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let node = open(place.path());
        let label = |name: &str, kind: &str, dir: Option<&str>| SpaceLabel {
            name: name.to_owned(),
            kind: kind.to_owned(),
            dir: dir.map(str::to_owned),
        };
        let ids: [SpaceId; 3] = [1, 2, 3].map(|byte| SpaceId::from_bytes([byte; 32]));
        let rows = [label("byhand", "folder", None), label("left", "data", None), label("away", "folder", Some("/no"))];
        for (id, row) in ids.iter().zip(&rows) {
            node.known().put_label(id, Some(row)).unwrap();
        }
        assert!(node.find_space("byhand").is_err());
        spaces::remove(&node, "byhand").unwrap();
        assert!(node.known().label(&ids[0]).is_none());
        assert!(spaces::remove(&node, "byhand").is_err());
        node.shutdown().await;
        drop(node);
        let node = open(place.path());
        let labels: Vec<_> = node.known().labels().into_iter().map(|(_, label)| label.name).collect();
        assert!(!labels.contains(&"left".to_owned()), "{labels:?}");
        assert!(labels.contains(&"away".to_owned()), "a store may have lost it: {labels:?}");
    }
}

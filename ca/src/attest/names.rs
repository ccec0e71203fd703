//! Names of users and groups, asked of the system and remembered for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User};
use tokio::sync::Semaphore;

use super::process::AttestError;

/// How long a name is believed without asking again.
const FRESH: Duration = Duration::from_secs(60);
/// How long the system (which may ask a directory over the network) has for one name.
const LIMIT: Duration = Duration::from_secs(5);
const REMEMBERED: usize = 4096;
/// Threads that may wait for the system at the same time.
const CONCURRENT: usize = 4;

/// Names of users and groups.
#[derive(Debug)]
pub struct Names {
    users: Remembered,
    groups: Remembered,
    asking: Arc<Semaphore>,
}

type Remembered = Mutex<HashMap<u32, (Instant, Option<Arc<str>>)>>;

impl Default for Names {
    fn default() -> Self {
        Self {
            users: Mutex::default(),
            groups: Mutex::default(),
            asking: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }
}

impl Names {
    /// The name of a user; `None` for one without.
    ///
    /// # Errors
    /// [`AttestError::Failed`] when the system does not say in time.
    pub async fn user(&self, uid: u32) -> Result<Option<Arc<str>>, AttestError> {
        self.name(&self.users, uid, |uid| {
            Ok(User::from_uid(Uid::from_raw(uid))?.map(|user| user.name))
        })
        .await
    }

    /// The name of a group; `None` for one without.
    ///
    /// # Errors
    /// [`AttestError::Failed`] when the system does not say in time.
    pub async fn group(&self, gid: u32) -> Result<Option<Arc<str>>, AttestError> {
        self.name(&self.groups, gid, |gid| {
            Ok(Group::from_gid(Gid::from_raw(gid))?.map(|group| group.name))
        })
        .await
    }

    async fn name(
        &self,
        remembered: &Remembered,
        id: u32,
        ask: fn(u32) -> nix::Result<Option<String>>,
    ) -> Result<Option<Arc<str>>, AttestError> {
        if let Some(name) = fresh(remembered, &id) {
            return Ok(name);
        }
        let asking = Arc::clone(&self.asking);
        let asked = async move {
            // The permit goes with the thread: one that hangs keeps others from piling up behind it.
            let permit = asking.acquire_owned().await.ok();
            tokio::task::spawn_blocking(move || {
                let name = ask(id);
                drop(permit);
                name
            })
            .await
        };
        let name = match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(Ok(name))) => name.map(Arc::from),
            Ok(Ok(Err(error))) => {
                return Err(AttestError::Failed(format!("name of the ID {id}: {error}")));
            }
            Ok(Err(error)) => return Err(AttestError::Failed(error.to_string())),
            Err(_) => {
                return Err(AttestError::Failed(format!(
                    "the system does not tell the name of the ID {id} within {LIMIT:?}"
                )));
            }
        };
        let mut remembered = remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(id, (Instant::now(), name.clone()));
        Ok(name)
    }
}

fn fresh<K: Eq + Hash, V: Clone>(
    remembered: &Mutex<HashMap<K, (Instant, V)>>,
    key: &K,
) -> Option<V> {
    let remembered = remembered.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, value) = remembered.get(key)?;
    (since.elapsed() < FRESH).then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_has_a_name_and_a_number_nobody_has_does_not() {
        let names = Names::default();
        for _ in 0..2 {
            assert_eq!(names.user(0).await.unwrap().as_deref(), Some("root"));
            assert_eq!(names.group(0).await.unwrap().as_deref(), Some("root"));
            assert_eq!(names.user(4_000_000_001).await, Ok(None));
            assert_eq!(names.group(4_000_000_001).await, Ok(None));
        }
        assert_eq!(names.users.lock().unwrap().len(), 2);
    }
}

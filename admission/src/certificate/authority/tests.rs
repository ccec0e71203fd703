use std::sync::Mutex;

use super::*;

const NAMES: [&str; 2] = ["portcullis-admission.portcullis.svc", "127.0.0.1"];

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Kept>>);

/// Version and octets.
type Kept = Option<(u64, Vec<u8>)>;

impl Keep for Memory {
    async fn read(&self) -> Result<Option<(String, Vec<u8>)>, Error> {
        let kept = self.0.lock().unwrap().clone();
        Ok(kept.map(|(version, octets)| (version.to_string(), octets)))
    }

    async fn write(&self, version: Option<&str>, octets: Vec<u8>) -> Result<bool, Error> {
        let mut kept = self.0.lock().unwrap();
        let now = kept.as_ref().map(|(version, _)| version.to_string());
        if now.as_deref() != version {
            return Ok(false);
        }
        let next = kept.as_ref().map_or(1, |(version, _)| version + 1);
        *kept = Some((next, octets));
        Ok(true)
    }
}

fn times() -> Times {
    Times {
        authority: Duration::from_secs(1000),
        certificate: Duration::from_secs(100),
        lead: Duration::from_secs(50),
    }
}

fn authority(memory: &Memory) -> Authority<Memory> {
    Authority::new(memory.clone(), NAMES.map(str::to_owned).into(), times())
}

#[tokio::test]
async fn two_instances_agree_on_one_authority_and_what_each_shows_always_holds() {
    let memory = Memory::default();
    let instances = [authority(&memory), authority(&memory)];
    let mut signed = [None, None];
    let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut all: Vec<Vec<u8>> = Vec::new();
    for step in 0..300 {
        let now = start + Duration::from_secs(step * 10);
        for (instance, signed) in instances.iter().zip(&mut signed) {
            let _ = instance.step(signed, now).await.unwrap();
        }
        let [one, two] = signed
            .each_ref()
            .map(|s| Arc::clone(&s.as_ref().unwrap().material));
        assert_eq!(one.roots, two.roots);
        for material in [&one, &two] {
            for name in NAMES {
                // By the roots of the other as well.
                material.verify(&two.roots, name, now).unwrap();
            }
        }
        assert!((1..=2).contains(&one.roots.len()), "{}", one.roots.len());
        for root in &one.roots {
            if !all.contains(&root.to_vec()) {
                all.push(root.to_vec());
            }
        }
    }
    assert!(
        all.len() >= 5,
        "{} authorities in three lifetimes",
        all.len()
    );
}

#[tokio::test]
async fn an_authority_is_published_before_it_signs_and_its_predecessor_loses_its_key() {
    let memory = Memory::default();
    let instance = authority(&memory);
    let mut signed = None;
    let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let at = |seconds| start + Duration::from_secs(seconds);
    let first = instance.step(&mut signed, at(0)).await.unwrap().unwrap();
    assert_eq!(first.roots.len(), 1);
    let published = instance.step(&mut signed, at(510)).await.unwrap().unwrap();
    assert_eq!(published.roots.len(), 2);
    published.verify(&first.roots, NAMES[0], at(510)).unwrap();
    let next = instance.step(&mut signed, at(570)).await.unwrap().unwrap();
    assert!(next.verify(&first.roots, NAMES[0], at(570)).is_err());
    next.verify(&next.roots, NAMES[0], at(570)).unwrap();
    let records = parse(&memory.0.lock().unwrap().as_ref().unwrap().1).unwrap();
    assert!(records[0].key.is_empty() && !records[1].key.is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_not_thrown_away() {
    let memory = Memory::default();
    *memory.0.lock().unwrap() = Some((3, b"{".to_vec()));
    let refused = authority(&memory)
        .step(&mut None, SystemTime::now())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("delete the secret"),
        "{refused}"
    );
    assert_eq!(memory.0.lock().unwrap().as_ref().unwrap().0, 3);
}

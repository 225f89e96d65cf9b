//! The places of hooks while an app loads, and which of them guard something.

use crate::policy::assets::MountDecl;
use crate::route::{Guards, Pattern};

/// The places of hooks while the app loads.
#[derive(Default)]
pub(super) struct HookPlaces {
    pub(super) patterns: Vec<Pattern>,
    guards: Option<Guards>,
    /// Those that something declared lies at or below.
    pub(super) reached: Vec<bool>,
}

impl HookPlaces {
    /// What they guard. No place comes after it is asked for.
    pub(super) fn guards(&mut self) -> &Guards {
        let patterns = &mut self.patterns;
        self.guards.get_or_insert_with(|| {
            self.reached = vec![false; patterns.len()];
            Guards::new(std::mem::take(patterns))
        })
    }

    /// What guards the app's paths, once it has loaded; `None` where nothing does.
    pub(super) fn finish(mut self) -> Option<Guards> {
        self.guards();
        self.guards.filter(|_| !self.reached.is_empty())
    }

    /// The places, counted from 1, that no route and no folder of files has anything to do with.
    pub(super) fn idle(&mut self, mounts: &[MountDecl]) -> Vec<usize> {
        self.guards();
        for mount in mounts {
            let rest = b"{*path}".to_vec();
            let fields = || mount.fields.iter().filter(|field| !field.is_empty());
            let files = Pattern::parse(&fields().chain([&rest]).collect::<Vec<_>>());
            let folder = Pattern::parse(&fields().collect::<Vec<_>>());
            for pattern in [files, folder].into_iter().flatten() {
                let guards = self.guards.iter().flat_map(|guards| guards.of_route(&pattern));
                for (place, _) in guards {
                    if let Some(reached) = self.reached.get_mut(usize::from(place)) {
                        *reached = true;
                    }
                }
            }
        }
        (1..).zip(&self.reached).filter(|(_, reached)| !**reached).map(|(number, _)| number).collect()
    }
}

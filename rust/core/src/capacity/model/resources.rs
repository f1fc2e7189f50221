//! The resources of one node. Most nodes know one, which lives in the node itself.

use super::resource::{Kind, Pool};
use crate::capacity::Resource;
use std::{option, slice};

#[derive(Debug, Default)]
pub(in crate::capacity) struct Pools {
    first: Option<Pool>,
    others: Vec<Pool>,
}

impl Pools {
    #[inline]
    pub(in crate::capacity) fn get(&self, resource: Resource) -> Option<&Pool> {
        match &self.first {
            Some(first) if first.resource == resource => Some(first),
            _ => self.others.iter().find(|pool| pool.resource == resource),
        }
    }

    #[inline]
    pub(in crate::capacity) fn get_mut(&mut self, resource: Resource) -> Option<&mut Pool> {
        match &mut self.first {
            Some(first) if first.resource == resource => Some(first),
            _ => self
                .others
                .iter_mut()
                .find(|pool| pool.resource == resource),
        }
    }

    /// The one of `resource`, made if need be.
    #[inline]
    pub(in crate::capacity) fn open(&mut self, resource: Resource, kind: Kind) -> &mut Pool {
        let first = self.first.get_or_insert_with(|| Pool::new(resource, kind));
        if first.resource == resource {
            first
        } else {
            Self::open_other(&mut self.others, resource, kind)
        }
    }

    #[cold]
    fn open_other(others: &mut Vec<Pool>, resource: Resource, kind: Kind) -> &mut Pool {
        let place = others.iter().position(|p| p.resource == resource);
        let place = place.unwrap_or_else(|| {
            others.push(Pool::new(resource, kind));
            others.len() - 1
        });
        &mut others[place]
    }

    #[inline]
    pub(in crate::capacity) fn iter(
        &self,
    ) -> std::iter::Chain<option::Iter<'_, Pool>, slice::Iter<'_, Pool>> {
        self.first.iter().chain(&self.others)
    }

    #[inline]
    pub(in crate::capacity) fn iter_mut(
        &mut self,
    ) -> std::iter::Chain<option::IterMut<'_, Pool>, slice::IterMut<'_, Pool>> {
        self.first.iter_mut().chain(&mut self.others)
    }
}

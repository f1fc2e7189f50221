//! `WorkerCells`: the memory that a driver shares with its workers. `headrace_core::worker::Cell` has the protocol.

use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use headrace_core::worker::{Cell, MIN_WORDS};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of a file, as words.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is accessed only through atomics, and unmapped only when its owner is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: RawFd, words: usize) -> PyResult<Self> {
        // SAFETY: the descriptor is borrowed for this call only. If the caller has closed it, the call fails.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let length = words * size_of::<AtomicU64>();
        let size = rustix::fs::fstat(fd).map_err(std::io::Error::from)?.st_size;
        if u64::try_from(size).unwrap_or(0) < length as u64 {
            // An access behind the end of the file would end the process.
            return Err(PyValueError::new_err(format!(
                "cells need a file of {length} bytes, and this one has {size}"
            )));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so the new mapping overlaps no memory of this process.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                access,
                MapFlags::SHARED,
                fd,
                0,
            )
        };
        let start = start.map_err(std::io::Error::from)?;
        let Some(start) = NonNull::new(start.cast()) else {
            return Err(PyValueError::new_err("the cells were mapped at address 0"));
        };
        Ok(Self { start, words })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, is aligned to a page, and lives as long as `self`. All bit patterns are valid, and
        // other processes change the words only by atomic accesses.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let length = self.words * size_of::<AtomicU64>();
        // SAFETY: it was mapped with this length, and all references to it have borrowed `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), length) };
    }
}

/// The cells of all workers of a driver, in a file that they all have mapped.
#[pyclass(name = "WorkerCells", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PyWorkerCells {
    mapping: Mapping,
    words_each: usize,
}

#[pymethods]
impl PyWorkerCells {
    #[new]
    fn new(fd: RawFd, count: usize, ring: usize) -> PyResult<Self> {
        if ring == 0 || count == 0 {
            return Err(PyValueError::new_err(
                "cells need at least one cell with one slot",
            ));
        }
        let words_each = MIN_WORDS - 1 + ring;
        Ok(Self {
            mapping: Mapping::new(fd, count * words_each)?,
            words_each,
        })
    }

    /// Return the bytes that so many cells need.
    #[staticmethod]
    fn size(count: usize, ring: usize) -> usize {
        count * (MIN_WORDS - 1 + ring) * size_of::<AtomicU64>()
    }

    fn clear(&self, cell: usize) -> PyResult<()> {
        self.cell(cell).map(Cell::clear)
    }

    fn begun(&self, cell: usize) -> PyResult<u64> {
        self.cell(cell).map(Cell::begun)
    }

    fn blocking(&self, cell: usize) -> PyResult<u64> {
        self.cell(cell).map(Cell::blocking)
    }

    fn veto(&self, cell: usize, position: u64) -> PyResult<bool> {
        self.cell(cell).map(|cell| cell.veto(position))
    }

    fn begin(&self, cell: usize, position: u64) -> PyResult<bool> {
        self.cell(cell).map(|cell| cell.begin(position))
    }

    fn set_blocking(&self, cell: usize, position: u64) -> PyResult<()> {
        self.cell(cell).map(|cell| cell.set_blocking(position))
    }
}

impl PyWorkerCells {
    fn cell(&self, index: usize) -> PyResult<Cell<'_>> {
        let mut cells = self.mapping.words().chunks_exact(self.words_each);
        match cells.nth(index) {
            Some(words) => Ok(Cell::new(words)),
            None => Err(PyIndexError::new_err(format!("there is no cell {index}"))),
        }
    }
}

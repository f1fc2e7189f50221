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
#[derive(Debug)]
pub(super) struct Cells {
    mapping: Mapping,
    words_each: usize,
}

impl Cells {
    pub(super) fn new(fd: RawFd, count: usize, ring: usize) -> PyResult<Self> {
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

    pub(super) fn iter(&self) -> impl Iterator<Item = Cell<'_>> {
        let words = self.mapping.words().chunks_exact(self.words_each);
        words.map(Cell::new)
    }
}

/// `WorkerCells` of `headrace._core`.
#[pyclass(name = "WorkerCells", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PyWorkerCells {
    cells: Cells,
}

#[pymethods]
impl PyWorkerCells {
    #[new]
    fn new(fd: RawFd, count: usize, ring: usize) -> PyResult<Self> {
        let cells = Cells::new(fd, count, ring)?;
        Ok(Self { cells })
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

    /// Note the process group of a worker: the number of its leader, and field 22 of `/proc/<pid>/stat`.
    fn set_group(&self, cell: usize, pid: u32, start_time: u64) -> PyResult<()> {
        if pid < 2 {
            return Err(PyValueError::new_err(format!(
                "pid must be a worker, not {pid}"
            )));
        }
        (self.cell(cell)).map(|cell| cell.set_group(u64::from(pid), start_time))
    }

    fn clear_group(&self, cell: usize) -> PyResult<()> {
        self.cell(cell).map(Cell::clear_group)
    }

    /// Return `(pid, start_time)`, or None.
    fn group(&self, cell: usize) -> PyResult<Option<(u64, u64)>> {
        self.cell(cell).map(Cell::group)
    }
}

impl PyWorkerCells {
    fn cell(&self, index: usize) -> PyResult<Cell<'_>> {
        (self.cells.iter().nth(index))
            .ok_or_else(|| PyIndexError::new_err(format!("there is no cell {index}")))
    }
}

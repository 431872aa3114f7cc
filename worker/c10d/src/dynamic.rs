//! Libraries that are loaded while the program runs, by the system's own loader.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// Every symbol is found at once, or the library is refused. Linux's value, as the one below.
const RTLD_NOW: c_int = 2;

/// What the library defines is found by those that are loaded after it.
const RTLD_GLOBAL: c_int = 0x100;

/// A library that stays loaded until the process ends: its static objects are registered elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Library(NonNull<c_void>);

// SAFETY: the handle is only given to `dlsym`, which any thread may call.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Loads the library at `path` with its dependencies.
///
/// # Errors
///
/// The loader's words, which name the file that is missing or wrong.
pub fn open(path: &Path) -> Result<Library, String> {
    let name =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| "the path holds a zero byte".to_owned())?;
    // SAFETY: the path is a C string that outlives the call. The initialisers of the library run; that is what the
    // callers, who name the library, want.
    let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    NonNull::new(handle).map(Library).ok_or_else(last_error)
}

impl Library {
    /// Address of the function `name`; the caller says what type it has.
    pub fn symbol(self, name: &CStr) -> Result<NonNull<c_void>, String> {
        // SAFETY: the handle came from `dlopen` and is never closed; the name is a C string.
        let address = unsafe { dlsym(self.0.as_ptr(), name.as_ptr()) };
        NonNull::new(address).ok_or_else(last_error)
    }
}

fn last_error() -> String {
    // SAFETY: returns null or a C string of the loader's that stays until the thread's next call of it.
    let text = unsafe { dlerror() };
    if text.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_a_loaded_library_is_found_and_another_is_not() {
        let library = open(Path::new("libm.so.6")).unwrap();
        assert!(library.symbol(c"cos").is_ok());
        assert!(library.symbol(c"no_such_function").unwrap_err().contains("no_such_function"));
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = open(Path::new("/no/such/libnothing.so")).unwrap_err();
        assert!(error.contains("libnothing.so"), "{error}");
    }
}

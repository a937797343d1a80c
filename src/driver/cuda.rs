//! CUDA's driver API, as far as `builtin:hello` computes with it: libcuda is found by the container's own loader.
//!
//! In: nothing but what the loader finds. Out: devices, and the numbers a kernel made on one of them. Runs in the
//! container. A library of another's is trusted to keep its documented interface (cuda.h), as every CUDA program does.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write;

use libloading::{Library, Symbol};

use crate::{Context, Result};

/// Writes the square of its number into each place. PTX of 2017 for the oldest GPUs that a driver of today has: the driver
/// translates it for the one at hand.
const KERNEL: &CStr = cr"
.version 6.0
.target sm_50
.address_size 64
.visible .entry squares(.param .u64 out, .param .u32 count)
{
    .reg .pred %p<2>;
    .reg .b32 %r<7>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra done;
    cvta.to.global.u64 %rd1, %rd1;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    mul.lo.s32 %r6, %r5, %r5;
    st.global.u32 [%rd3], %r6;
done:
    ret;
}
";

const BLOCK: u32 = 256;

/// Every function gives a `CUresult`.
type Code = c_int;
/// `CUdevice`
type Ordinal = c_int;

/// CUDA, initialised.
pub(crate) struct Cuda(Library);

/// What a device is.
pub(crate) struct Device {
    /// Name of the product.
    pub(crate) name: String,
    /// `GPU-…`
    pub(crate) uuid: String,
}

impl Cuda {
    /// Loads libcuda and starts it.
    pub(crate) fn start() -> Result<Self> {
        type Init = unsafe extern "C" fn(c_uint) -> Code;
        // SAFETY: loading runs libcuda's own initialisers, as in every CUDA program.
        let library = unsafe { Library::new("libcuda.so.1") }.context(|| "load libcuda.so.1")?;
        let cuda = Self(library);
        // SAFETY: `CUresult cuInit(unsigned int)`.
        let code = unsafe { cuda.symbol::<Init>(c"cuInit")?(0) };
        cuda.check("cuInit", code)?;
        Ok(cuda)
    }

    /// How many devices there are.
    pub(crate) fn count(&self) -> Result<i32> {
        type Count = unsafe extern "C" fn(*mut c_int) -> Code;
        let mut count = 0;
        // SAFETY: `CUresult cuDeviceGetCount(int *)`, and the pointer is valid.
        let code = unsafe { self.symbol::<Count>(c"cuDeviceGetCount")?(&raw mut count) };
        self.check("cuDeviceGetCount", code).map(|()| count)
    }

    /// What device `number` is.
    pub(crate) fn device(&self, number: i32) -> Result<Device> {
        type Name = unsafe extern "C" fn(*mut c_char, c_int, Ordinal) -> Code;
        type Uuid = unsafe extern "C" fn(*mut [u8; 16], Ordinal) -> Code;
        let device = self.ordinal(number)?;
        let (mut name, mut uuid) = ([0_u8; 256], [0_u8; 16]);
        // SAFETY: `CUresult cuDeviceGetName(char *, int, CUdevice)`, which writes 255 bytes at most; the last stays zero.
        let code = unsafe { self.symbol::<Name>(c"cuDeviceGetName")?(name.as_mut_ptr().cast(), 255, device) };
        self.check("cuDeviceGetName", code)?;
        // SAFETY: `CUresult cuDeviceGetUuid(CUuuid *, CUdevice)`, and a CUuuid is 16 bytes.
        let code = unsafe { self.symbol::<Uuid>(c"cuDeviceGetUuid")?(&raw mut uuid, device) };
        self.check("cuDeviceGetUuid", code)?;
        let name = CStr::from_bytes_until_nul(&name).context(|| "read the device's name")?;
        Ok(Device { name: name.to_string_lossy().into_owned(), uuid: uuid_text(uuid) })
    }

    /// The squares of 0 to `count`-1, computed on device `number`.
    pub(crate) fn squares(&self, number: i32, count: u32) -> Result<Vec<u32>> {
        type Retain = unsafe extern "C" fn(*mut *mut c_void, Ordinal) -> Code;
        type Set = unsafe extern "C" fn(*mut c_void) -> Code;
        type Load = unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> Code;
        type Function = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> Code;
        type Alloc = unsafe extern "C" fn(*mut u64, usize) -> Code;
        let device = self.ordinal(number)?;
        let (mut context, mut module, mut function) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let mut memory = 0_u64;
        // SAFETY: cuda.h's prototypes; every pointer is to a variable of the right type, or to a C string.
        unsafe {
            self.check(
                "cuDevicePrimaryCtxRetain",
                self.symbol::<Retain>(c"cuDevicePrimaryCtxRetain")?(&raw mut context, device),
            )?;
            self.check("cuCtxSetCurrent", self.symbol::<Set>(c"cuCtxSetCurrent")?(context))?;
            self.check(
                "cuModuleLoadData",
                self.symbol::<Load>(c"cuModuleLoadData")?(&raw mut module, KERNEL.as_ptr().cast()),
            )?;
            let get = self.symbol::<Function>(c"cuModuleGetFunction")?;
            self.check("cuModuleGetFunction", get(&raw mut function, module, c"squares".as_ptr()))?;
            self.check("cuMemAlloc", self.symbol::<Alloc>(c"cuMemAlloc_v2")?(&raw mut memory, 4 * count as usize))?;
        }
        self.launch(function, memory, count)?;
        self.fetch(memory, count)
    }

    fn launch(&self, function: *mut c_void, mut memory: u64, mut count: u32) -> Result<()> {
        type Launch = unsafe extern "C" fn(
            *mut c_void,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            *mut c_void,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> Code;
        let blocks = count.div_ceil(BLOCK);
        let mut arguments: [*mut c_void; 2] = [(&raw mut memory).cast(), (&raw mut count).cast()];
        let (none, nothing) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: cuLaunchKernel copies the arguments, which are of the kernel's two types, before it returns.
        let code = unsafe {
            let launch = self.symbol::<Launch>(c"cuLaunchKernel")?;
            launch(function, blocks, 1, 1, BLOCK, 1, 1, 0, none, arguments.as_mut_ptr(), nothing)
        };
        self.check("cuLaunchKernel", code)
    }

    /// Copies the numbers, which waits for the kernel, and frees the memory.
    fn fetch(&self, memory: u64, count: u32) -> Result<Vec<u32>> {
        type Copy = unsafe extern "C" fn(*mut c_void, u64, usize) -> Code;
        type Free = unsafe extern "C" fn(u64) -> Code;
        let mut numbers = vec![0_u32; count as usize];
        // SAFETY: as many bytes are copied as both the vector and the device's memory have; then the latter is freed once.
        unsafe {
            let copy = self.symbol::<Copy>(c"cuMemcpyDtoH_v2")?;
            self.check("cuMemcpyDtoH", copy(numbers.as_mut_ptr().cast(), memory, 4 * numbers.len()))?;
            self.check("cuMemFree", self.symbol::<Free>(c"cuMemFree_v2")?(memory))?;
        }
        Ok(numbers)
    }

    fn ordinal(&self, number: i32) -> Result<Ordinal> {
        type Get = unsafe extern "C" fn(*mut Ordinal, c_int) -> Code;
        let mut device = 0;
        // SAFETY: `CUresult cuDeviceGet(CUdevice *, int)`, and the pointer is valid.
        let code = unsafe { self.symbol::<Get>(c"cuDeviceGet")?(&raw mut device, number) };
        self.check("cuDeviceGet", code).map(|()| device)
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `T` must be the function's type.
    unsafe fn symbol<T>(&self, name: &CStr) -> Result<Symbol<'_, T>> {
        // SAFETY: the caller knows the type.
        unsafe { self.0.get(name.to_bytes_with_nul()) }
            .context(|| format!("find {} in libcuda", name.to_string_lossy()))
    }

    fn check(&self, call: &str, code: Code) -> Result<()> {
        type Name = unsafe extern "C" fn(Code, *mut *const c_char) -> Code;
        if code == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: `CUresult cuGetErrorName(CUresult, const char **)`, which points to a constant or to nothing.
        let known = unsafe { self.symbol::<Name>(c"cuGetErrorName").is_ok_and(|f| f(code, &raw mut name) == 0) };
        // SAFETY: the call succeeded, so the pointer is to a C string that is never freed.
        let name = known.then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
        Err(format!("{call} gives {code} ({})", name.unwrap_or_else(|| "unknown".into())))
    }
}

/// As `nvidia-smi` writes it: dashes after 4, 6, 8 and 10 bytes.
fn uuid_text(uuid: [u8; 16]) -> String {
    let mut text = String::from("GPU-");
    for (at, byte) in uuid.iter().enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}"); // writing to a String cannot fail
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_the_driver_does() {
        let bytes = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(uuid_text(bytes), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}

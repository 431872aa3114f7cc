//! Which of the node's devices this worker may use.

use super::{Device, DeviceError};

/// The variable with which CUDA is told, and a batch system tells a job, which devices there are.
pub const VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// Of the devices that the driver lists, those that the variable leaves, in its order. CUDA takes what stands before a name that it
/// does not know; here such a name is refused, because a worker with fewer GPUs than it was given is somebody's mistake.
///
/// # Errors
///
/// [`DeviceError`] names what is not there, or is named twice.
pub fn visible(devices: Vec<Device>, variable: Option<&str>) -> Result<Vec<Device>, DeviceError> {
    match variable {
        None => Ok(devices),
        Some(list) if matches!(list.trim(), "" | "-1" | "NoDevFiles") => Ok(Vec::new()),
        Some(list) => select(&devices, list.split(','), VARIABLE),
    }
}

/// Of `devices` those that a configuration names; all, if it names none.
///
/// # Errors
///
/// [`DeviceError`] names what is not there, or is named twice.
pub fn chosen(devices: Vec<Device>, names: &[String]) -> Result<Vec<Device>, DeviceError> {
    match names {
        [] => Ok(devices),
        names => select(&devices, names.iter().map(String::as_str), "devices"),
    }
}

fn select<'a>(
    devices: &[Device],
    names: impl Iterator<Item = &'a str>,
    origin: &'static str,
) -> Result<Vec<Device>, DeviceError> {
    let mut selected: Vec<Device> = Vec::new();
    for name in names.map(str::trim) {
        let found: Vec<&Device> = devices.iter().filter(|device| is_named(device, name)).collect();
        let [device] = found[..] else {
            let (name, found) = (name.to_owned(), devices.iter().map(ToString::to_string).collect());
            return Err(DeviceError::NoSuch { origin, name, found });
        };
        if selected.contains(device) {
            return Err(DeviceError::Twice { origin, device: device.to_string() });
        }
        selected.push(device.clone());
    }
    Ok(selected)
}

/// By number, or by UUID or the beginning of one, as CUDA does.
fn is_named(device: &Device, name: &str) -> bool {
    match name.parse::<u32>() {
        Ok(index) => device.index == index && device.uuid == device.gpu,
        Err(_) => name.len() > 4 && device.uuid.starts_with(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        let gpu = |index: u32, uuid: &str| Device {
            index,
            uuid: uuid.to_owned(),
            gpu: uuid.to_owned(),
            name: String::new(),
            memory_mib: 1,
            bus: String::new(),
        };
        let part = Device { uuid: "MIG-77".to_owned(), ..gpu(2, "GPU-c9") };
        vec![gpu(0, "GPU-a1"), gpu(1, "GPU-a2"), part]
    }

    fn seen(variable: Option<&str>) -> Result<Vec<String>, String> {
        let found = visible(devices(), variable).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|device| device.uuid).collect())
    }

    #[test]
    fn devices_are_named_by_number_uuid_and_its_beginning_in_any_order() {
        assert_eq!(seen(None).unwrap(), ["GPU-a1", "GPU-a2", "MIG-77"]);
        assert_eq!(seen(Some("1,0")).unwrap(), ["GPU-a2", "GPU-a1"]);
        assert_eq!(seen(Some(" MIG-77 , GPU-a1")).unwrap(), ["MIG-77", "GPU-a1"]);
        for hidden in ["", "-1", "NoDevFiles"] {
            assert_eq!(seen(Some(hidden)).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn a_name_of_none_or_of_several_or_given_twice_is_refused() {
        // A GPU that is cut into parts is not there as a whole.
        for name in ["7", "GPU-b", "GPU-a", "2", "GPU-", "0,"] {
            let error = seen(Some(name)).unwrap_err();
            assert!(error.contains("CUDA_VISIBLE_DEVICES") && error.contains("GPU 1 (GPU-a2)"), "{error}");
        }
        assert!(seen(Some("0,GPU-a1")).unwrap_err().contains("GPU 0 (GPU-a1) twice"));
    }

    #[test]
    fn a_configuration_chooses_among_what_is_visible() {
        let left = visible(devices(), Some("1,GPU-a1")).unwrap();
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(chosen(left.clone(), &names(&["1"])).unwrap()[0].uuid, "GPU-a2");
        assert_eq!(chosen(left.clone(), &[]).unwrap().len(), 2);
        assert!(chosen(left, &names(&["MIG-77"])).unwrap_err().to_string().contains("`devices`"));
    }
}

"""UEs of UERANSIM in a pod, told what to do by the commands of `mvnobox.core.sim ue`."""

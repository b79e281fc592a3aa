# Boots the base disk and makes the appliance of it with Ansible. One template for Packer 1.6.6 and for 1.11 and later:
# plugins, which 1.6.6 has built in and refuses to hear of, are named in plugins/.

packer {
  required_version = ">= 1.6.6"
}

source "qemu" "appliance" {
  iso_url          = var.base_disk
  iso_checksum     = "none"
  disk_image       = true
  disk_size        = var.disk_size
  disk_interface   = "virtio-scsi"
  format           = "qcow2"
  skip_compaction  = true
  output_directory = var.output_directory
  vm_name          = "system.qcow2"

  # Nothing here has to survive a power cut, and what the guest trims is to be gone from the file.
  disk_cache   = "unsafe"
  disk_discard = "unmap"

  # -accel stands in qemuargs: "accelerator" has no way to say how many threads TCG may take.
  accelerator  = "none"
  machine_type = "q35"
  net_device   = "virtio-net"
  headless     = true
  disable_vnc  = true
  cpus         = 2
  memory       = 2560

  # Each of these replaces Packer's own of the same name, and only that: its drives and its card stay.
  qemuargs = [
    ["-accel", var.accel],
    ["-cpu", var.cpu_model],
    ["-display", "none"],
    ["-serial", "file:${var.serial_log}"],
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
  ]

  cd_files = var.seed_files
  cd_label = "cidata"

  boot_wait              = "1s"
  communicator           = "ssh"
  ssh_username           = "builder"
  ssh_private_key_file   = var.ssh_private_key_file
  ssh_timeout            = var.ssh_timeout
  ssh_handshake_attempts = 100

  # The script removes the user whose session this is, so it runs outside of it.
  shutdown_command = "sudo systemd-run --quiet --no-block --collect /bin/sh /run/finish.sh"
  shutdown_timeout = "10m"
}

build {
  sources = ["source.qemu.appliance"]

  provisioner "shell" {
    inline = [
      # 2 means: done, with something to recover from; what it was stands in the log.
      "cloud-init status --wait --long || [ $? = 2 ]",
      # Until the next boot. It runs with every reload of systemd, and a build does many.
      "sudo mkdir -p /run/systemd/system-generators",
      "sudo ln -s /dev/null /run/systemd/system-generators/cloud-init-generator",
    ]
  }

  provisioner "ansible" {
    command       = var.ansible_playbook
    playbook_file = var.playbook
    user          = "builder"
    host_alias    = "appliance"
    # Its proxy offers no host key that a current OpenSSH takes.
    use_proxy = false
    ansible_env_vars = [
      "ANSIBLE_CONFIG=${path.root}/../ansible.cfg",
      "ANSIBLE_FORCE_COLOR=0",
      "ANSIBLE_HOST_KEY_CHECKING=False",
      "ANSIBLE_NOCOLOR=1",
    ]
    extra_arguments = [
      "--inventory", "${path.root}/../inventories/build",
      "--extra-vars", "appliance_version=${var.appliance_version}",
      "--extra-vars", "source_date_epoch=${var.source_date_epoch}",
      "--extra-vars", "wheelhouse=${var.wheelhouse}",
      "--extra-vars", "release_key=${var.release_key}",
    ]
  }

  provisioner "file" {
    source      = "${path.root}/finish.sh"
    destination = "/tmp/finish.sh"
  }

  provisioner "shell" {
    inline = ["sudo mv /tmp/finish.sh /run/finish.sh"]
  }
}

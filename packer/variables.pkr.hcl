# Everything here is set by packer/build.py; a person runs `make appliance`.

variable "appliance_version" {
  type        = string
  description = "Version of the appliance, as pacs/__init__.py has it."
}

variable "source_date_epoch" {
  type        = string
  description = "Seconds since 1970 that stand for the time of this build."
}

variable "base_disk" {
  type        = string
  description = "The qcow2 of packer/base; it is copied, not changed."
}

variable "disk_size" {
  type        = string
  description = "Its virtual size, with QEMU's unit letter."
}

variable "accel" {
  type        = string
  description = "QEMU's -accel: kvm, or tcg with its threads."

  validation {
    condition     = contains(["kvm", "tcg,thread=multi", "tcg,thread=single"], var.accel)
    error_message = "The accelerator must be kvm, tcg,thread=multi or tcg,thread=single."
  }
}

variable "cpu_model" {
  type        = string
  description = "QEMU's -cpu: host with KVM, max without."
}

variable "seed_files" {
  type        = list(string)
  description = "The files user-data and meta-data of the NoCloud seed that lets the builder in."
}

variable "ssh_private_key_file" {
  type        = string
  description = "The builder's ed25519 key. Packer 1.6.6 has no RSA signature that a current sshd takes."
}

variable "ssh_timeout" {
  type        = string
  description = "How long the machine may take until SSH answers."
}

variable "ansible_playbook" {
  type        = string
  description = "The ansible-playbook of .venv."
}

variable "playbook" {
  type        = string
  description = "What makes the appliance of the booted base disk."
}

variable "wheelhouse" {
  type        = string
  description = "Folder on this host with the service's wheels for the guest."
}

variable "release_key" {
  type        = string
  description = "Public half of the key that upgrade files are signed with, in hex."
}

variable "output_directory" {
  type        = string
  description = "Where the finished disk goes. Must not exist."
}

variable "serial_log" {
  type        = string
  description = "Where the guest's serial port is written to."
}
